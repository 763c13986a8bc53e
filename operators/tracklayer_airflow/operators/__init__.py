"""One operator a kind of step. Each composes the core library; none has logic of its own."""
