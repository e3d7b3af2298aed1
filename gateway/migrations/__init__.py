"""The steps from each revision of the database to the next, for Alembic. Never changed once a station may have taken them."""
