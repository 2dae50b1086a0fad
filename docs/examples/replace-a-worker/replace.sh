#!/bin/sh
# Replaces the Celery worker of a queue by one of opsq while tasks are sent all the time. `replace.sh 400` sends 400.
# CELERY and OPSQ are the commands of the two environments.
set -eu
celery=${CELERY:-celery} opsq=${OPSQ:-opsq} python=${PYTHON:-python} count=${1:-400}

until_ready() { until grep -q " ready\." "$1"; do sleep 0.1; done; }

# What runs today: a Celery worker, and somebody who sends.
$celery -A feed worker -l info -c 2 -n old@here >old.log 2>&1 & old=$!
until_ready old.log
$python produce.py "$count" & producer=$!

# A worker of opsq joins: both take from the queue.
$opsq -A feed worker -l info -c 2 -n new@here >new.log 2>&1 & new=$!
until_ready new.log

# The old one takes no more, ends what it has in hand, and goes.
$celery -A feed control -d old@here cancel_consumer celery
sleep 1
kill -TERM $old
wait $old

# All that is sent from now on is opsq's. (In your project: leave it running.)
wait $producer
until [ "$(wc -l <seen)" -ge "$count" ]; do sleep 0.1; done
kill -TERM $new
wait $new
$opsq -A feed queues
