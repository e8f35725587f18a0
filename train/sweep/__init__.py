"""Many runs over a space of arguments, and their table and pictures."""
