"""What collectors misread in a template."""
