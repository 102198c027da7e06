"""The v2 dialect of etcd: what goes over the wire, what comes back, and what it means for calls and watches."""
