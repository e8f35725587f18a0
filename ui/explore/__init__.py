"""The Explore tab: a text, its class or what is written, where every token went, and changes to the routing."""
