"""The predictions table in other tools' formats."""
