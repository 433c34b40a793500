"""Commands that people call: tables and costs for the screen."""
