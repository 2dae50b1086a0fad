"""Sends as many tasks as it is told, fifty a second."""

import sys
import time

from feed import see

for number in range(int(sys.argv[1])):
    see.delay(number)
    time.sleep(0.02)
