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

--
-- All that functions share is in a few locals, because making a function costs a walk along those, and every call makes all.

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

-- How the ledger stands. What is known while it learns, and who is missing after it; nil: it does not, and nobody is.
local ledger, learning, missing_ones

-- What comes of the call.
local run = {
  -- Set when a ring is not the one that the state speaks of.
  is_damaged = false,
  -- The rings of the call's limits, in their order.
  rings = {},
  -- The replicas in order, each with whether it is named (1 or 0).
  roll = {}, is_roll_new = false,
  -- The fields of the state that go. The keys of what was here before, if the ledger began anew.
  gone = {}, forgotten = nil,
  -- What is remembered of each flow that was looked at (false: nothing), and when it last waited or was served.
  tags = {}, tags_seen = {}, is_tag_new = {}, tags_gone = {},
  -- What is in use of each limit, as the line sees it, and what the caller was let take.
  totals = {}, taken = {},
  -- Who is told to call, and when: replica, moment.
  wakenings = {},
}

local Ring, State, Replica, Tags, Line, Answer, Run

local K = {
  FORMAT = 1,
  CLOCK_SLACK = 250000, CLOCK_JITTER = 50000,
  SILENT_AFTER = 1000000, CUT_OFF_AFTER = 3000000, LEFT_KEPT = 60000000, LIFE_KEPT = 600000000,
  LEARNING_MIN = 1000000, WINDOW_MAX = 3600000000, TRIAL_LIFE = 10000000, THERE = 1000000,
  SHARES = 1000000, WINDOW_COST = 1073741824,
  HEADS_MAX = 16, MISSED_MAX = 16, TAGS_MAX = 1024, SLOT = 10,
  DAY = 86400000000, HALF_DAY = 43200000000,
  OPEN = 0, LEARNING = 1, LOST = 2, STALE = 3,
  BY_NONE = 0, BY_LIMIT = 1, BY_LINE = 2, BY_PAUSE = 3, BY_LEARNING = 4,
  -- How many numbers there are of a limit of the call (name, life, width, amount, since, ends, held), of the ledger but for
  -- its lists, and of a ring.
  LIMIT = 7, HEAD = 25, RING = 18,
  -- Places in a replica's record. What it was told by its last answer begins with TOLD; what it has for sure does not.
  SEQUENCE = 1, BORN = 2, BEAT = 3, SENT = 4, CONTACT = 5, LEFT = 6, OFF = 7, SHARE_LIFE = 8, LEASE = 9,
  TOLD_SHARE = 10, TOLD_AT = 11, SHARE = 12, AT = 13, REPEATED = 14,
  -- Of limit i these are 6 i further. A mark of -1: it was told nothing of the limit; granted of -1: nor by its last answer.
  HELD = 9, TOLD_SEEN = 10, TOLD_MARK = 11, SEEN = 12, MARK = 13, GRANTED = 14, PER_RING = 6,
}

local floor, min, max, format = math.floor, math.min, math.max, string.format
local pack, decode, redis_call = cmsgpack.pack, cmsgpack.unpack, redis.call

local function less(a, b) return max(a - b, 0) end

