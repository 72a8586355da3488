"""What a sweep found: tables, figures, a page, and the best settings to go on with."""
