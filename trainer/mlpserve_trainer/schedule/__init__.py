"""Training again and again, by a timetable: each run in a process of its own, one at a time."""
