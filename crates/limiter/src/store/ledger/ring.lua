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
--   c      the ledger itself: `read_ledger` and `write_ledger` below
--   i      every replica, in order, with whether charges of it may count (1 or 0)
--   m<id>  a replica: what is at the places that `state.lua` names
--   h<id>  its requests that wait: tier, tenant, cost, service, arrived, count, then limit, take and hold so many times
--   a<id>  the numbers it was answered last, without the view
--   l      what is known while it learns, and who is missing then: `read_learning` and `write_learning` below
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

local FORMAT = 1
local CLOCK_SLACK, CLOCK_JITTER = 250000, 50000
local SILENT_AFTER, CUT_OFF_AFTER, LEFT_KEPT, LIFE_KEPT = 1000000, 3000000, 60000000, 600000000
local LEARNING_MIN, WINDOW_MAX, TRIAL_LIFE, THERE = 1000000, 3600000000, 10000000, 1000000
local SHARES, WINDOW_COST = 1000000, 1073741824
local HEADS_MAX, MISSED_MAX, TAGS_MAX, SLOT = 16, 16, 1024, 10
local DAY, HALF_DAY = 86400000000, 43200000000
local OPEN, LEARNING, LOST, STALE = 0, 1, 2, 3
local BY_NONE, BY_LIMIT, BY_LINE, BY_PAUSE, BY_LEARNING = 0, 1, 2, 3, 4

local floor, min, max = math.floor, math.min, math.max
local pack, decode, redis_call = cmsgpack.pack, cmsgpack.unpack, redis.call
local format, rep = string.format, string.rep

-- The call -----------------------------------------------------------------------------------------------------------

local replica, sequence, known_epoch, next_epoch, server, their_time, shares, share_life, lease, trusts_empty, leaves, wants_view,
  known_facts, tier_0, tier_1, tier_2, tier_3, limits, entries, asks, missed, own, seen, their_names =
  decode(ARGV[2])
trusts_empty, leaves, wants_view = trusts_empty == 1, leaves == 1, wants_view == 1
local id = format('%.0f', replica)
local server_time = tonumber(ARGV[1])
if server_time == 0 then
  local time = redis_call('TIME')
  server_time = time[1] * 1000000 + time[2]
end
local LIMIT = 7 -- name, life, width, amount, since, ends, held

local function less(a, b) return max(a - b, 0) end

-- A ring: the charges of one limit -----------------------------------------------------------------------------------

-- Set when a ring is not the one that the state speaks of.
local is_damaged = false
local ledger

local function ring_key(ring)
  if not ring.key then ring.key = format('%sr:%.0f', KEYS[1]:sub(1, -6), ring.name) end
  return ring.key
end

local function first_live(ring, now)
  return max(floor(less(now, ring.life) / ring.width), floor(ring.since / ring.width))
end

-- Reads some buckets and their slots, as far as they are not known yet.
local load
function load(ring, buckets)
  if #buckets > 500 then
    local rest = {}
    for i = 501, #buckets do rest[i - 500] = buckets[i] end
    load(ring, rest)
    buckets = { unpack(buckets, 1, 500) }
  end
  local b, s, from, to, size = ring.b, ring.s, ring.from, ring.to, ring.size
  local ask, into, at, n = { 'BITFIELD_RO', ring_key(ring), 'GET', 'i64', '#0' }, {}, {}, 0
  for i = 1, #buckets do
    local bucket = buckets[i]
    if not b[bucket] then
      b[bucket] = 0
      if not ring.is_fresh and bucket >= from and bucket <= to then
        n = n + 1
        into[n], at[n], ask[3 * n + 3], ask[3 * n + 4] = b, bucket, 'GET', 'i64'
        ask[3 * n + 5] = '#' .. 1 + size + bucket % (size * SLOT)
      end
    end
    local slot = floor(bucket / SLOT)
    if not s[slot] then
      s[slot] = 0
      if not ring.is_fresh and slot >= floor(from / SLOT) and slot <= floor(to / SLOT) then
        n = n + 1
        into[n], at[n], ask[3 * n + 3], ask[3 * n + 4] = s, slot, 'GET', 'i64'
        ask[3 * n + 5] = '#' .. 1 + slot % size
      end
    end
  end
  -- What is written to is looked at before, whatever is to be read of it.
  if n == 0 and (ring.is_fresh or ring.is_checked or #buckets == 0) then return end
  local got = redis_call(unpack(ask))
  if got[1] ~= ledger.epoch then is_damaged = true end
  ring.is_checked = true
  for i = 1, n do into[i][at[i]] = got[i + 1] end
end

-- Reads cells in a row.
local function read_cells(ring, first, count, values)
  local text = redis_call('GETRANGE', ring_key(ring), 8 * first, 8 * (first + count) - 1)
  if #text ~= 8 * count then
    is_damaged = true
    text = text .. rep('\0', 8 * count - #text)
  end
  for at = 0, count - 1, 128 do
    local part = min(128, count - at)
    local cells = { struct.unpack('>' .. rep('I8', part), text, 8 * at + 1) }
    for i = 1, part do values[#values + 1] = cells[i] end
  end
end

-- Reads all buckets from one to another.
local function load_range(ring, from, to)
  local b, count, values = ring.b, ring.size * SLOT, {}
  local first, last = max(from, ring.from), min(to, ring.to)
  if not ring.is_fresh and first <= last then
    local cell, length = first % count, last - first + 1
    local part = min(length, count - cell)
    read_cells(ring, 1 + ring.size + cell, part, values)
    if part < length then read_cells(ring, 1 + ring.size, length - part, values) end
  end
  for bucket = from, to do b[bucket] = b[bucket] or values[bucket - first + 1] or 0 end
end

-- Reads all slots.
local function load_slots(ring)
  if ring.has_slots then return end
  ring.has_slots = true
  if ring.is_fresh then return end
  local s, values = ring.s, {}
  read_cells(ring, 1, ring.size, values)
  for slot = floor(ring.from / SLOT), floor(ring.to / SLOT) do s[slot] = s[slot] or values[1 + slot % ring.size] end
end

-- Makes place for more slots: the ring is written anew.
local function grow(ring, size)
  if ring.live == 0 then
    ring.low, ring.top = 1, 0
  else
    load_slots(ring)
    load_range(ring, ring.low, ring.top)
    for bucket = ring.low, ring.top do
      if ring.b[bucket] > 0 then ring.dirty[#ring.dirty + 1] = bucket end
    end
  end
  ring.size, ring.is_fresh = size, true
end

local function add(ring, bucket, by)
  local slot = floor(bucket / SLOT)
  if not (ring.b[bucket] and ring.s[slot]) then load(ring, { bucket }) end
  if ring.low > ring.top then
    ring.low, ring.top = bucket, bucket
  else
    local low, top = min(ring.low, bucket), max(ring.top, bucket)
    local span = floor(top / SLOT) - floor(low / SLOT) + 1
    if span > ring.size then grow(ring, span + 2) end
    ring.low, ring.top = low, top
  end
  ring.b[bucket], ring.s[slot] = ring.b[bucket] + by, ring.s[slot] + by
  ring.live = ring.live + by
  ring.dirty[#ring.dirty + 1] = bucket
end

-- Adopts the terms of a caller. Returns whether replicas count otherwise by them.
local function adopt(ring, now, at)
  local old_life, old_since = ring.life, ring.since
  local life, width = limits[at + 1], max(limits[at + 2], 1)
  if life >= ring.life or less(now, ring.asked) >= LIFE_KEPT then ring.life, ring.asked = life, now end
  ring.width, ring.amount = width, limits[at + 3]
  -- Whoever still lives in yesterday does not say when today ends.
  if limits[at + 4] >= ring.since then ring.since, ring.ends = limits[at + 4], limits[at + 5] end
  local size = floor(ring.life / (width * SLOT)) + 3
  if size > ring.size then grow(ring, size) end
  return ring.life ~= old_life or ring.since ~= old_since
end

local function advance(ring, first)
  if ring.low > ring.top or first <= ring.low then return end
  if first > ring.top then
    ring.live, ring.low, ring.top = 0, 1, 0
    ring.b, ring.s, ring.dirty, ring.is_fresh = {}, {}, {}, true
    return
  end
  local from, to = ring.low, first - 1
  if to - from >= SLOT then
    load_slots(ring)
    load_range(ring, from, to)
  end
  for bucket = from, to do
    if not ring.b[bucket] then load(ring, { bucket }) end
    local charged = ring.b[bucket]
    if charged > 0 then add(ring, bucket, -charged) end
  end
  ring.low = first
end

local function charge(ring, now, stamp, amount)
  local bucket = floor(min(stamp, now) / ring.width)
  if amount > 0 and bucket >= first_live(ring, now) then add(ring, bucket, amount) end
end

-- Adds an amount, times a share in millionths, to what is kept.
local function keep(ring, amount, share)
  -- In two parts: the product has more than 53 bits.
  local whole = floor(amount / SHARES)
  local part = ring.part + (amount - whole * SHARES) * share
  local carry = floor(part / SHARES)
  ring.kept, ring.part = ring.kept + whole * share + carry, part - carry * SHARES
end

local function refund(ring, stamp, amount)
  local bucket = floor(stamp / ring.width)
  if not ring.b[bucket] then load(ring, { bucket }) end
  local given = min(amount, ring.b[bucket])
  if given > 0 then
    add(ring, bucket, -given)
    ring.refunded = ring.refunded + given
    keep(ring, given, ring.rate)
  end
end

local function expiry(ring, bucket)
  local moment = (bucket + 1) * ring.width + ring.life
  return ring.ends > 0 and min(moment, ring.ends) or moment
end

-- Returns when so much will have expired; 0: it never will.
local function freed_at(ring, amount)
  if ring.live < amount then return 0 end
  load_slots(ring)
  local freed, low, top = 0, ring.low, ring.top
  for slot = floor(low / SLOT), floor(top / SLOT) do
    local sum = ring.s[slot] or 0
    if freed + sum >= amount then
      local from, to = max(low, slot * SLOT), min(top, slot * SLOT + SLOT - 1)
      load_range(ring, from, to)
      for bucket = from, to do
        freed = freed + ring.b[bucket]
        if freed >= amount then return expiry(ring, bucket) end
      end
    end
    freed = freed + sum
  end
  return 0
end

-- Returns what will have expired by a moment.
local function freed_by(ring, moment)
  if ring.low > ring.top then return 0 end
  if ring.ends > 0 and ring.ends <= moment then return ring.live end
  local last = floor((moment - ring.life) / ring.width) - 1
  if last < ring.low then return 0 end
  if last >= ring.top then return ring.live end
  load_slots(ring)
  local freed, slot = 0, floor(last / SLOT)
  for before = floor(ring.low / SLOT), slot - 1 do freed = freed + (ring.s[before] or 0) end
  local from = max(ring.low, slot * SLOT)
  load_range(ring, from, last)
  for bucket = from, last do freed = freed + ring.b[bucket] end
  return freed
end

local function ring_limit(ring)
  return ring.told == 0 and ring.amount or min(ring.amount, ring.told)
end

