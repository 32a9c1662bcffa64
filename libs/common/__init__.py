"""The vocabulary and the runtime that services share.

A module enters only if two or more services use it and its name is a role (the bus, the clock, the
calendar). Nothing in here knows a service by name, imports one, or is called after "utilities".
"""
