-- The ledger ---------------------------------------------------------------------------------------------------------

local HEAD, RING = 21, 14

-- Adds what a ring has only while the script runs: buckets and slots that were read, and the buckets that changed.
local function open_ring(ring)
  ring.b, ring.s, ring.dirty = {}, {}, {}
  -- The cells that are stored. Where nothing is charged, nothing that is stored matters.
  ring.from, ring.to, ring.is_fresh = ring.low, ring.top, ring.low > ring.top
  return ring
end

local function read_ledger(text)
  local c = { decode(text) }
  local waiters, rings, count = {}, {}, c[HEAD]
  for i = 1, count do
    local at = HEAD - 2 + 3 * i
    waiters[i] = { id = c[at], beat = c[at + 1], woken = c[at + 2] }
  end
  local at = HEAD + 3 * count + 1
  while c[at] do
    rings[#rings + 1] = open_ring({
      name = c[at], life = c[at + 1], asked = c[at + 2], width = c[at + 3], amount = c[at + 4], told = c[at + 5],
      source = c[at + 6], since = c[at + 7], ends = c[at + 8], live = c[at + 9], low = c[at + 10], top = c[at + 11],
      size = c[at + 12], others = c[at + 13], index = #rings + 1,
    })
    at = at + RING
  end
  return {
    format = c[1], epoch = c[2], last = c[3], skew = c[4], paused_until = c[5], facts_version = c[6],
    -- Of the tiers 0 to 3: the service from which newcomers begin, and what was earned. How many flows are remembered.
    virtual = { [0] = c[7], c[8], c[9], c[10] }, credit = { [0] = c[11], c[12], c[13], c[14] }, tags = c[15],
    -- Sums over all replicas: how many are there, the shares of those who have not left, and in `others` of each ring what
    -- is held and kept. They are right until `recount_at`, and as long as the longest life is `life`.
    recount_at = c[16], life = c[17], there = c[18], shares = c[19],
    expire_at = c[20], waiters = waiters, rings = rings,
  }
end

local function write_ledger()
  local v, e, waiters, rings = ledger.virtual, ledger.credit, ledger.waiters, ledger.rings
  local c = {
    FORMAT, ledger.epoch, ledger.last, ledger.skew, ledger.paused_until, ledger.facts_version, v[0], v[1], v[2], v[3],
    e[0], e[1], e[2], e[3], ledger.tags, ledger.recount_at, ledger.life, ledger.there, ledger.shares, ledger.expire_at,
    #waiters,
  }
  local n = HEAD
  for i = 1, #waiters do
    local waiter = waiters[i]
    c[n + 1], c[n + 2], c[n + 3], n = waiter.id, waiter.beat, waiter.woken, n + 3
  end
  for i = 1, #rings do
    local r = rings[i]
    c[n + 1], c[n + 2], c[n + 3], c[n + 4], c[n + 5], c[n + 6] = r.name, r.life, r.asked, r.width, r.amount, r.told
    c[n + 7], c[n + 8], c[n + 9], c[n + 10], c[n + 11] = r.source, r.since, r.ends, r.live, r.low
    c[n + 12], c[n + 13], c[n + 14], n = r.top, r.size, r.others, n + RING
  end
  return pack(unpack(c))
end

-- What is known while the ledger learns; nil: it does not.
local learning

local function read_learning(text)
  local began, last, is_fresh, tried_at, seeded, named, proven, slots = decode(text)
  return {
    began = began, last = last, is_fresh = is_fresh == 1, tried_at = tried_at, seeded = seeded, named = named,
    proven = proven, slots = slots,
  }
end

local function write_learning()
  local l = learning
  return pack(l.began, l.last, l.is_fresh and 1 or 0, l.tried_at, l.seeded, l.named, l.proven, l.slots)
end

-- The keys of what was here before, if the ledger began anew.
local forgotten

local function begin(now, is_fresh)
  forgotten = { KEYS[1], KEYS[2] }
  if ledger then
    for i = 1, #ledger.rings do forgotten[i + 2] = ring_key(ledger.rings[i]) end
  end
  ledger = {
    epoch = max(next_epoch, 1), last = now, skew = ledger and ledger.skew or 0, paused_until = 0, facts_version = 0,
    virtual = { [0] = 0, 0, 0, 0 }, credit = { [0] = 0, 0, 0, 0 }, tags = 0,
    recount_at = 0, life = 0, there = 0, shares = 0, expire_at = 0, waiters = {}, rings = {},
  }
  learning = nil
  if not (is_fresh and trusts_empty) then
    local life = 0
    for at = 1, #limits, LIMIT do
      if floor(limits[at] / 8) <= WINDOW_MAX then life = max(life, limits[at + 1]) end
    end
    learning = {
      began = now, last = now + life, is_fresh = is_fresh, tried_at = -1, seeded = {}, named = {}, proven = {}, slots = {},
    }
  end
end

local function brief(now, status)
  local paused = ledger.paused_until > now and ledger.paused_until or 0
  return { status, ledger.epoch, now, 0, 0, paused, learning and learning.last or 0, BY_NONE, 0, 0, ledger.facts_version }
end

-- Replicas -----------------------------------------------------------------------------------------------------------

-- Places in a replica's record; held and seen of limit i are at HELD + 2 i and SEEN + 2 i.
local SEQUENCE, BORN, BEAT, LEFT, SHARE, SHARE_LIFE, LEASE, HELD, SEEN = 1, 2, 3, 4, 5, 6, 7, 6, 7

local function is_there(member, now)
  return member[LEFT] == 0 and less(now, member[BEAT]) <= SILENT_AFTER
end

local function is_over(member, now, life)
  local silent = less(now, member[BEAT])
  if member[LEFT] == 1 then return silent > LEFT_KEPT end
  return silent > max(member[SHARE_LIFE] + life, member[LEASE]) + SILENT_AFTER
end

-- Adds what a replica holds, and what is kept for it, to the sums of the rings, so many times.
local function count_held(member, now, times)
  if member[LEFT] == 1 then return end
  local silent, share = less(now, member[BEAT]), member[SHARE]
  for i = 1, #ledger.rings do
    local ring, sum = ledger.rings[i], 0
    if silent <= member[LEASE] then sum = member[HELD + 2 * i] or 0 end
    local used = member[SEEN + 2 * i] or 0
    if silent > SILENT_AFTER and used > 0 then
      -- In two parts: the product has more than 53 bits.
      local whole = floor(used / SHARES)
      sum = sum + whole * share + floor(((used - whole * SHARES) * share + SHARES - 1) / SHARES)
    end
    ring.others = ring.others + times * sum
  end
end

-- Returns the next moment at which something else of a replica counts.
local function changes_at(member, now, life)
  local silent, beat = less(now, member[BEAT]), member[BEAT]
  if member[LEFT] == 1 then return beat + LEFT_KEPT + 1 end
  local at = beat + max(member[SHARE_LIFE] + life, member[LEASE]) + SILENT_AFTER + 1
  if silent <= SILENT_AFTER then at = min(at, beat + SILENT_AFTER + 1) end
  if silent <= member[LEASE] then at = min(at, beat + member[LEASE] + 1) end
  return at
end

-- The replicas in order, each with whether it is there, once that was read; and the fields that go.
local roll, is_roll_new
local gone = {}

local function read_roll()
  if not roll then
    local text = not forgotten and redis_call('HGET', KEYS[1], 'i')
    roll = text and { decode(text) } or {}
  end
  return roll
end

-- Notes whether a replica is there.
local function enroll(member_id, there)
  read_roll()
  local at = 1
  while roll[at] and roll[at] < member_id do at = at + 2 end
  if roll[at] ~= member_id then
    table.insert(roll, at, member_id)
    table.insert(roll, at + 1, there)
  elseif roll[at + 1] == there then
    return
  end
  roll[at + 1], is_roll_new = there, true
end

local function stop_waiting(member_id)
  for i = 1, #ledger.waiters do
    if ledger.waiters[i].id == member_id then return table.remove(ledger.waiters, i) end
  end
end

-- Counts all replicas anew, and forgets those of which nothing matters any more. Returns the caller's record, if it stays.
local function recount(now, life, me)
  read_roll()
  ledger.there, ledger.shares, ledger.recount_at, ledger.life = 0, 0, now + DAY, life
  for i = 1, #ledger.rings do ledger.rings[i].others = 0 end
  local fields, records = {}, {}
  for at = 1, #roll, 2 do fields[#fields + 1] = format('m%.0f', roll[at]) end
  if #fields > 0 then records = redis_call('HMGET', KEYS[1], unpack(fields)) end
  local old = roll
  roll, is_roll_new = {}, true
  for i = 1, #fields do
    local member_id = old[2 * i - 1]
    local member = member_id == replica and me or { decode(records[i]) }
    if is_over(member, now, life) then
      local text = format('%.0f', member_id)
      gone[#gone + 1], gone[#gone + 2], gone[#gone + 3] = 'm' .. text, 'h' .. text, 'a' .. text
      stop_waiting(member_id)
      if member_id == replica then me = nil end
    else
      local there = is_there(member, now) and 1 or 0
      roll[#roll + 1], roll[#roll + 2] = member_id, there
      ledger.there = ledger.there + there
      if member[LEFT] == 0 then ledger.shares = ledger.shares + member[SHARE] end
      ledger.recount_at = min(ledger.recount_at, changes_at(member, now, life))
      count_held(member, now, 1)
    end
  end
  return me
end

-- Service of flows ---------------------------------------------------------------------------------------------------

-- What is remembered of each flow that was looked at; false: nothing.
local tags, is_tag_new, tags_gone = {}, {}, {}

local function load_tags(flows)
  local ask = {}
  for i = 1, #flows do
    local flow = flows[i]
    if tags[flow] == nil then
      tags[flow] = false
      ask[#ask + 1] = flow
    end
  end
  if ledger.tags == 0 or #ask == 0 or forgotten then return end
  for at = 1, #ask, 1000 do
    local got = redis_call('HMGET', KEYS[2], unpack(ask, at, min(at + 999, #ask)))
    for i = 1, #got do tags[ask[at + i - 1]] = got[i] and tonumber(got[i]) end
  end
end

local function tag_of(flow, tier)
  return max(tags[flow] or 0, ledger.virtual[tier % 4])
end

local function put_tag(flow, tag)
  tags[flow], is_tag_new[flow] = tag, true
end

local function correct_tag(flow, tier, by)
  local tag = tags[flow]
  if not tag then return end
  if by > 0 then
    put_tag(flow, tag + by)
  else
    put_tag(flow, max(less(tag, -by), min(ledger.virtual[tier % 4], tag)))
  end
end

-- Forgets the flows that others have caught up with.
local function prune_tags()
  if not forgotten then
    local all = redis_call('HGETALL', KEYS[2])
    for i = 1, #all, 2 do
      local flow = all[i]
      if tags[flow] == nil then tags[flow] = tonumber(all[i + 1]) end
    end
  end
  local count = 0
  for flow, tag in pairs(tags) do
    if tag then
      if tag > ledger.virtual[tonumber(flow:sub(1, 1)) % 4] then
        count = count + 1
      else
        tags[flow] = false
        tags_gone[#tags_gone + 1] = flow
      end
    end
  end
  ledger.tags = count
end

