import numpy as np

from mlpserve_trainer.fitting.parallel.used_inputs import first_used_inputs, rarest_first


def test_rare_inputs_come_first_and_those_that_no_row_uses_not_at_all() -> None:
    rows = (np.arange(640)[:, None] % np.array([4, 1, 640, 64]) == 0).astype(np.uint8)
    rows[:, 2] = 0
    kept, whole = (rarest_first(rows, 32, with_unused=unused) for unused in (False, True))
    assert kept is not None
    assert whole is not None
    assert (kept.tolist(), whole.tolist()) == ([3, 0, 1], [2, 3, 0, 1])
    np.testing.assert_array_equal(
        first_used_inputs(rows[:66, kept]), [0, *[2, 2, 2, 1] * 15, 2, 2, 2, 0, 2]
    )
    assert rarest_first(rows[:, :2], 32, with_unused=False) is None  # every batch uses both
