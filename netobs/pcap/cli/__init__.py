"""What ``netobs capture`` is made of."""
