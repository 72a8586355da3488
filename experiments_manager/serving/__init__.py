"""The model server, launchers for other servers, and the client."""
