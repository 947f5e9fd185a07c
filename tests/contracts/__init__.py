"""One check a kind of part; tests/test_contracts.py runs it over every row of the registry."""
