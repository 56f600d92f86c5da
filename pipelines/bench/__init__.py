"""Side by side with peers: the same problem, the same checker, one table and one plot."""
