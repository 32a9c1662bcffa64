"""The NATS server: who may do what (`policy`), and the configuration made of it (`config`)."""
