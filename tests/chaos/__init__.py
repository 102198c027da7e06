"""A cluster of three whose members and connections fail, and what a client promises checked all the while.

python -m tests.chaos --seconds 60            # is every history of calls linearizable?
python -m tests.chaos.soak --seconds 600      # are events lost, do calls hang, does the process grow?
"""
