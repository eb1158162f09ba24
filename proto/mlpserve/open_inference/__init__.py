"""The Open Inference Protocol, version 2.

A process that also loads another's copy of it, such as `tritonclient`'s, can load only one of
the two: they define the same names. That is why the client never imports this.
"""
