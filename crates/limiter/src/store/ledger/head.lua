-- The ledger of one quota group, as one call of a replica changes it. `tidegate_core::ledger` is its definition; this does
-- the same in the same order, and `tests/conformance.rs` compares the two call by call.
--
-- KEYS   all in one hash tag, so that they live at one node of a cluster
--   1    <prefix>:{<group>}:state   hash: how the ledger stands, and its replicas
--   2    <prefix>:{<group>}:tags    hash: the service of flows that waited or were served while others did, and when
--   3 …  <prefix>:{<group>}:r:<n>   string: the charges of the call's limits, in their order; n is the limit's number
--
-- ARGV
--   1    the server's clock in microseconds; 0: the script asks for it
--   2    the call, as `wire.rs` writes it: MessagePack values one after the other
--
-- Reply  numbers: those of `Reply::numbers`, then replica and moment of each wakening, then how many of these there are.
--
-- Fields of the state. All are MessagePack values one after the other; moments and lengths in microseconds.
--   c      the ledger itself: `State.read` and `State.write`
--   i      every replica, in order, with whether charges of it may count (1 or 0)
--   m<id>  a replica: what is at the places that are named below
--   h<id>  its requests that wait: tier, tenant, cost, service, arrived, count, then limit, take and hold so many times
--   a<id>  the numbers it was answered last, without the view
--   l      what is known while it learns, and who is missing then: `State.read_learning`
-- Tenants are strings of eight bytes: a number in here holds 53 bits. Limits are named by their place in the ledger, from 1.
--
-- Charges are cells of eight bytes, the highest first: the epoch, then `size` slots of ten buckets, then the buckets. Slot
-- and bucket number modulo their count is the place. Only cells between the ring's `low` and `top` are not 0. The sums by
-- slot are there so that nobody needs to read hundreds of buckets. A ring with another epoch is not the one that the state
-- speaks of, and then the ledger has lost something.
--
-- Everything is read and computed first and written last, in one go. An error (a full memory, a replica
-- that may not be written to, a key of another kind) comes before or at the first write, and leaves everything as it was.
-- No number is ever turned into text by `..` or `tostring`: they keep 14 digits.

-- The call.
local replica, sequence, known_epoch, next_epoch, server, their_time, shares, share_life, lease, trusts_empty, leaves, wants_view,
  known_facts, tier_0, tier_1, tier_2, tier_3, limits, entries, asks, missed, own, seen, their_names =
  cmsgpack.unpack(ARGV[2])
trusts_empty, leaves, wants_view = trusts_empty == 1, leaves == 1, wants_view == 1
local id = string.format('%.0f', replica)
local server_time = tonumber(ARGV[1])
if server_time == 0 then
  local time = redis.call('TIME')
  server_time = time[1] * 1000000 + time[2]
end

