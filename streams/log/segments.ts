// The cloud's log: one file a day and class, every entry numbered in the order of its arrival.
