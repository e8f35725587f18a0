"""Texts in, answers out: a class, a written text, filled blanks, each with where every token went."""
