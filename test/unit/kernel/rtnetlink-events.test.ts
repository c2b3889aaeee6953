/**
 * Notifications as Linux 6.18 sent them in an empty network namespace, to what `ip`, `sysctl` and `nft` 1.0.6 did, without
 * netlink's own header.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { changedTable } from '../../../src/kernel/nftables-events.js';
import { readEvent } from '../../../src/kernel/rtnetlink-events.js';
CAPTURES
