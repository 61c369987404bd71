"""What a collector's session leaves to the next process: waiting rows, Sequence Number, account (docs/architecture.md).

Imported only where a ``Keeper`` keeps something. Everything here relies on one rule: the process may be killed between
any two stores, and its stores are in the memory in the order of the program.
"""
