"""What tests of several parts share: small models, sets and records, servers, checks of the documentation."""
