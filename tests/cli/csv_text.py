"""Text tables for tests."""


def as_csv(names, columns):
    """Return a header and rows."""
    rows = zip(*([str(value) for value in column] for column in columns), strict=True)
    return "\n".join([",".join(names), *(",".join(row) for row in rows)]) + "\n"
