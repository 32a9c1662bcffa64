"""The database: roles, migrations, and the runner that applies them."""
