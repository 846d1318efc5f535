"""Events of streamed generations, past Serve's handles: one frame per step and ingress replica.

A handle call costs the same for a token as for a whole answer, several hundred microseconds of two
processes' time. So the handle carries the request, its errors and its cancellation, and the events
go over one connection from each Generator replica to each Ingress replica. ARCHITECTURE.md,
"Delivery", has the figures.
"""
