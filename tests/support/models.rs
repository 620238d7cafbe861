//! A small models folder with formula weights, for tests of the whole program.
