"""A simulator of the whole system in virtual time: the product's own code, one seed a world."""
