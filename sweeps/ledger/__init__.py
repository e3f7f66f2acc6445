"""What was promised to whom: the ledger of private datasets."""
