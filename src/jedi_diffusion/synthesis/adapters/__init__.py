"""Real models behind the protocols. Each adapter imports what it needs when it is made."""
