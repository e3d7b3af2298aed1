"""One call of the technician's tool, in as much heap as it has: the request, or what completes it. For real MicroPython."""

import gc

from firmware import enrolment

if enrolment.state()["pending"]:
    print("complete", enrolment.complete())
else:
    print("request", len(enrolment.request("khi-cn-b1")))
gc.collect()
print(gc.mem_alloc(), "of", gc.mem_alloc() + gc.mem_free())
