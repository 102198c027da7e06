"""A cluster of three whose members and connections fail, and what a client promises checked all the while.

python -m tests.chaos --seconds 60            # is every history of calls linearizable?
python -m tests.chaos.soak --seconds 600      # are events lost, do calls hang, does the process grow?
python -m tests.chaos.locks --seconds 600     # does one process at a time hold a lock?
"""
