"""The outer transport: datagrams to and from the server, over UDP, TCP or a stream that the application opened."""
