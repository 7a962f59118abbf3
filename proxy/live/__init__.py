"""The Live API: WebSocket sessions between a client and Google."""
