"""The people who log in: logins, passwords, and a log of what they do."""
