#!/bin/sh
# Record docs/examples/data/mawk-hash.lackey.xz: all memory accesses of an awk program that fills
# a hash table and adds up its values. Recorded with valgrind 3.19.0 and mawk 1.3.4 20200120 on
# Debian 12, x86-64. The empty environment makes it repeatable: the stack begins with it.
set -e
env -i PATH=/usr/bin:/bin LC_ALL=C \
    valgrind --tool=lackey --trace-mem=yes --log-file=mawk-hash.lackey \
    mawk 'BEGIN { x = 1
                  for (i = 0; i < 900; i++) { x = (x * 69069 + 1) % 4294967296; a[x] = i }
                  for (k in a) s += a[k]
                  print s }'
xz -9e mawk-hash.lackey
