"""What the command line prints: tables, plans, outlines of specs."""
