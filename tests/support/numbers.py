"""Numbers that code forgets."""

import numpy as np

# Any arithmetic with it, a change of its type too, is a warning of NumPy: "invalid value".
SIGNALLING_NAN = np.array(0x7FF0000000000001).view(np.float64)
SIGNALLING_NAN_32 = np.array(0x7F800001, np.uint32).view(np.float32)
