"""What runs on a developer's or an operator's machine; nothing in here is deployed."""
