"""Users: logins, passwords, and the activity log."""
