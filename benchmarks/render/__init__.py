"""Result files as tables and figures."""
