"""INDICATORS -> SIGNALS: where one series crosses another in the regular session."""
