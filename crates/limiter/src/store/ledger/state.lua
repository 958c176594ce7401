-- The ledger ---------------------------------------------------------------------------------------------------------

local HEAD, RING = 25, 18

-- Adds what a ring has only while the script runs: buckets and slots that were read, and the buckets that changed.
local function open_ring(ring)
  ring.b, ring.s, ring.dirty = {}, {}, {}
  -- The cells that are stored. Where nothing is charged, nothing that is stored matters.
  ring.from, ring.to, ring.is_fresh = ring.low, ring.top, ring.low > ring.top
  return ring
end

local function read_ledger(c)
  local waiters, rings, count = {}, {}, c[HEAD]
  for i = 1, count do
    local at = HEAD - 2 + 3 * i
    waiters[i] = { id = c[at], beat = c[at + 1], woken = c[at + 2] }
  end
  local at = HEAD + 3 * count + 1
  while c[at] do
    rings[#rings + 1] = open_ring({
      name = c[at], life = c[at + 1], asked = c[at + 2], width = c[at + 3], amount = c[at + 4], told = c[at + 5],
      source = c[at + 6], since = c[at + 7], ends = c[at + 8], live = c[at + 9], refunded = c[at + 10], low = c[at + 11],
      top = c[at + 12], size = c[at + 13],
      -- What replicas hold; what is kept for them, and a millionth part of it; the shares of those for whom a refund is kept.
      held = c[at + 14], kept = c[at + 15], part = c[at + 16], rate = c[at + 17], index = #rings + 1,
    })
    at = at + RING
  end
  return {
    epoch = c[2], last = c[3], skew = c[4], doubt = c[5], paused_until = c[6], facts_version = c[7],
    -- Of the tiers 0 to 3: the service from which newcomers begin, and what was earned. How many flows are remembered.
    virtual = { [0] = c[8], c[9], c[10], c[11] }, credit = { [0] = c[12], c[13], c[14], c[15] }, tags = c[16],
    -- Sums over all replicas: how many are there, the shares that they claim, and in the rings what is held and kept. They
    -- are right until `recount_at`, as long as lives are what they were. `known` is 1 if everybody knows everybody.
    recount_at = c[17], life = c[18], short = c[19], there = c[20], shares = c[21], known = c[22],
    expire_at = c[23], server = c[24], waiters = waiters, rings = rings,
  }
end

local function write_ledger()
  local v, e, waiters, rings = ledger.virtual, ledger.credit, ledger.waiters, ledger.rings
  local c = {
    FORMAT, ledger.epoch, ledger.last, ledger.skew, ledger.doubt, ledger.paused_until, ledger.facts_version,
    v[0], v[1], v[2], v[3], e[0], e[1], e[2], e[3], ledger.tags, ledger.recount_at, ledger.life, ledger.short, ledger.there,
    ledger.shares, ledger.known, ledger.expire_at, ledger.server, #waiters,
  }
  local n = HEAD
  for i = 1, #waiters do
    local waiter = waiters[i]
    c[n + 1], c[n + 2], c[n + 3], n = waiter.id, waiter.beat, waiter.woken, n + 3
  end
  for i = 1, #rings do
    local r = rings[i]
    c[n + 1], c[n + 2], c[n + 3], c[n + 4], c[n + 5], c[n + 6] = r.name, r.life, r.asked, r.width, r.amount, r.told
    c[n + 7], c[n + 8], c[n + 9], c[n + 10], c[n + 11] = r.source, r.since, r.ends, r.live, r.refunded
    c[n + 12], c[n + 13], c[n + 14], c[n + 15], c[n + 16] = r.low, r.top, r.size, r.held, r.kept
    c[n + 17], c[n + 18], n = r.part, r.rate, n + RING
  end
  return pack(unpack(c))
end

-- What is known while the ledger learns, and who is missing after it; nil: it does not, and nobody is.
local learning, missing_ones

local function read_learning(text)
  local l, m = decode(text)
  learning = l and {
    began = l[1], last = l[2], is_fresh = l[3] == 1, tried_at = l[4], seeded = l[5], named = l[6], proven = l[7], slots = l[8],
  } or nil
  missing_ones = m and { names = m[1], shares = m[2], last = m[3] } or nil
end

local function write_learning()
  local l, m = learning, missing_ones
  return pack(
    l and { l.began, l.last, l.is_fresh and 1 or 0, l.tried_at, l.seeded, l.named, l.proven, l.slots },
    m and { m.names, m.shares, m.last }
  )
end

local function has(list, value)
  for i = 1, #list do
    if list[i] == value then return i end
  end
end

local function insert(list, value)
  if not has(list, value) then list[#list + 1] = value end
end

local function has_all(list, wanted)
  for i = 1, #wanted do
    if not has(list, wanted[i]) then return false end
  end
  return true
end

-- Returns a ledger of which nobody knows anything yet.
local function blank(epoch, server, last, skew)
  return {
    epoch = epoch, server = server, last = last, skew = skew, doubt = 0, paused_until = 0, facts_version = 0,
    virtual = { [0] = 0, 0, 0, 0 }, credit = { [0] = 0, 0, 0, 0 }, tags = 0,
    recount_at = 0, life = 0, short = 0, there = 0, shares = 0, known = 0, expire_at = 0, waiters = {}, rings = {},
  }
end

-- The replicas in order, each with whether it is named (1 or 0). The fields of the state that go.
local roll, is_roll_new = {}, false
local gone = {}

-- The keys of what was here before, if the ledger began anew.
local forgotten

local function begin(now, is_fresh)
  forgotten = { KEYS[1], KEYS[2] }
  for i = 1, #ledger.rings do forgotten[i + 2] = ring_key(ledger.rings[i]) end
  local epoch = max(next_epoch, 1)
  if epoch == ledger.epoch or epoch == known_epoch then epoch = epoch + 1 end
  -- Time goes on as the caller knows it: nobody else is there who could say that the server's clock has jumped.
  ledger = blank(epoch, server, now, now - server_time)
  learning, missing_ones, roll, is_roll_new, gone = nil, nil, {}, false, {}
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

-- Places in a replica's record. What it was told by its last answer begins with TOLD; what it has for sure does not.
local SEQUENCE, BORN, BEAT, SENT, CONTACT, LEFT, OFF, SHARE_LIFE, LEASE = 1, 2, 3, 4, 5, 6, 7, 8, 9
local TOLD_SHARE, TOLD_AT, SHARE, AT, REPEATED = 10, 11, 12, 13, 14
-- Of limit i these are 6 i further. A mark of -1: it was told nothing of the limit; granted of -1: nor by its last answer.
local HELD, TOLD_SEEN, TOLD_MARK, SEEN, MARK, GRANTED, PER_RING = 9, 10, 11, 12, 13, 14, 6

local function is_there(member, now)
  return member[LEFT] == 0 and less(now, member[BEAT]) <= SILENT_AFTER
end

-- Until when it may use its share. It may be in touch since its last call, though that is not known.
local function share_ends(member)
  return member[SENT] + member[SHARE_LIFE] + 2 * SILENT_AFTER
end

local function claim(member, now)
  if member[LEFT] == 1 or now > share_ends(member) then return 0 end
  return max(member[TOLD_SHARE], member[SHARE])
end

local function is_over(member, now)
  local silent, life = less(now, member[BEAT]), ledger.life
  if member[LEFT] == 1 then return silent > max(life, LEFT_KEPT) end
  return silent > max(member[SHARE_LIFE] + life, member[LEASE]) + 10 * SILENT_AFTER
end

local function named_until(member)
  return member[BEAT] + ledger.short + (member[LEFT] == 1 and 0 or member[SHARE_LIFE] + 2 * SILENT_AFTER)
end

-- Adds what replicas hold, and what is kept for them, to the sums of the rings, so many times.
local function count(member, now, times)
  if member[LEFT] == 1 then return end
  local in_touch, is_held = less(now, member[CONTACT]) <= SILENT_AFTER, less(now, member[BEAT]) <= member[LEASE]
  local share, ends = times * max(member[TOLD_SHARE], member[SHARE]), share_ends(member)
  for i = 1, #ledger.rings do
    local ring, at = ledger.rings[i], PER_RING * i
    if is_held then ring.held = ring.held + times * (member[HELD + at] or 0) end
    if share ~= 0 and now <= ends + ring.life and ring.since <= ends then
      if in_touch then
        ring.rate = ring.rate + share
        keep(ring, ring.refunded - max(member[MARK + at] or 0, 0), share)
      else
        local seen_and_granted = (member[SEEN + at] or 0) + max(member[GRANTED + at] or 0, 0)
        keep(ring, max(member[TOLD_SEEN + at] or 0, seen_and_granted), share)
      end
    end
  end
end

-- Returns the next moment at which something else of a replica counts.
local function changes_at(member, now)
  local beat, life, best = member[BEAT], ledger.life, now + DAY
  local function at(moment)
    if moment >= now and moment < best then best = moment + 1 end
  end
  at(named_until(member))
  if member[LEFT] == 1 then
    at(beat + max(life, LEFT_KEPT))
    return best
  end
  at(beat + SILENT_AFTER)
  at(beat + member[LEASE])
  at(beat + max(member[SHARE_LIFE] + life, member[LEASE]) + 10 * SILENT_AFTER)
  at(member[CONTACT] + SILENT_AFTER)
  local ends = share_ends(member)
  at(ends)
  if less(now, member[CONTACT]) > SILENT_AFTER then
    for i = 1, #ledger.rings do at(ends + ledger.rings[i].life) end
  end
  return best
end

-- Returns the records of all replicas, in the order of the roll.
local function read_members(me)
  local fields, members = {}, {}
  for at = 1, #roll, 2 do fields[#fields + 1] = format('m%.0f', roll[at]) end
  for first = 1, #fields, 1000 do
    local got = redis_call('HMGET', KEYS[1], unpack(fields, first, min(first + 999, #fields)))
    for i = 1, #got do members[#members + 1] = got[i] and { decode(got[i]) } or false end
  end
  for i = 1, #members do
    if roll[2 * i - 1] == replica then members[i] = me end
  end
  return members
end

-- Notes that a replica is there.
local function enroll()
  local at = 1
  while roll[at] and roll[at] < replica do at = at + 2 end
  if roll[at] == replica then
    if roll[at + 1] == 1 then return end
    roll[at + 1] = 1
  else
    table.insert(roll, at, replica)
    table.insert(roll, at + 1, 1)
  end
  is_roll_new = true
end

local function stop_waiting(member_id)
  for i = 1, #ledger.waiters do
    if ledger.waiters[i].id == member_id then return table.remove(ledger.waiters, i) end
  end
end

-- Counts all replicas anew, and forgets those of which nothing matters any more. Returns the caller's record, if it stays.
local function recount(now, me)
  ledger.there, ledger.shares, ledger.recount_at = 0, 0, now + DAY
  for i = 1, #ledger.rings do
    local ring = ledger.rings[i]
    ring.held, ring.kept, ring.part, ring.rate = 0, 0, 0, 0
  end
  local members, old = read_members(me), roll
  roll, is_roll_new = {}, true
  for i = 1, #members do
    local member_id, member = old[2 * i - 1], members[i]
    if is_over(member, now) then
      local text = format('%.0f', member_id)
      gone[#gone + 1], gone[#gone + 2], gone[#gone + 3] = 'm' .. text, 'h' .. text, 'a' .. text
      stop_waiting(member_id)
      if member_id == replica then me = nil end
    else
      roll[#roll + 1], roll[#roll + 2] = member_id, now <= named_until(member) and 1 or 0
      if is_there(member, now) then ledger.there = ledger.there + 1 end
      ledger.shares = ledger.shares + claim(member, now)
      ledger.recount_at = min(ledger.recount_at, changes_at(member, now))
      count(member, now, 1)
    end
  end
  return me
end

-- Returns whether the caller has the answer to its call of a number, the last that came here, and has not given it up.
local function is_answered(last)
  for i = 1, #missed do
    if missed[i][1] == last then return false end
  end
  return true
end

-- Notes whether the caller has its last answer, or has given it up.
local function confirm(me, has_answer)
  if not has_answer then
    me[TOLD_SHARE], me[TOLD_AT] = me[SHARE], me[AT]
  else
    me[CONTACT], me[SHARE], me[AT] = me[SENT], me[TOLD_SHARE], me[TOLD_AT]
  end
  for at = PER_RING, PER_RING * #ledger.rings, PER_RING do
    local granted = me[GRANTED + at]
    if not has_answer then
      me[TOLD_SEEN + at], me[TOLD_MARK + at] = me[SEEN + at], me[MARK + at]
    elseif me[REPEATED] == 0 then
      me[SEEN + at], me[MARK + at] = me[TOLD_SEEN + at], me[TOLD_MARK + at]
    elseif granted >= 0 then
      if me[MARK + at] < 0 then me[SEEN + at], me[MARK + at] = me[TOLD_SEEN + at], me[TOLD_MARK + at] end
      me[SEEN + at] = max(me[TOLD_SEEN + at], me[SEEN + at] + granted)
    end
    me[GRANTED + at] = -1
  end
  me[REPEATED] = 0
end

-- Notes what the caller is told of a limit by the answer to its call.
local function tell(me, ring, granted, is_shown)
  local at = PER_RING * ring.index
  if me[MARK + at] < 0 then me[SEEN + at], me[MARK + at] = 0, ring.refunded end
  me[GRANTED + at] = granted
  if is_shown then
    me[TOLD_SEEN + at], me[TOLD_MARK + at] = ring.live, ring.refunded
  else
    me[TOLD_SEEN + at], me[TOLD_MARK + at] = me[SEEN + at] + granted, me[MARK + at]
  end
end

-- When a replica was told for sure who is there; 0: it knows nobody.
local function told_at(member)
  return member[AT] ~= 0 and member[AT] or member[TOLD_AT]
end

-- Returns a function that says whether everybody who is not surely cut off knows that a replica is there.
local function acquaintance(now, me)
  if ledger.known == 1 then return function() return true end end
  -- The two who were told longest ago: a replica need not know of itself.
  local members, first, second, first_id = read_members(me), math.huge, math.huge, 0
  for i = 1, #members do
    local member = members[i]
    local at = told_at(member)
    if at ~= 0 and member[LEFT] == 0 and less(now, member[CONTACT]) <= CUT_OFF_AFTER then
      if at < first then
        first, second, first_id = at, first, roll[2 * i - 1]
      else
        second = min(second, at)
      end
    end
  end
  local is_known, known = {}, 1
  for i = 1, #members do
    local member_id = roll[2 * i - 1]
    is_known[member_id] = members[i][BORN] < (member_id == first_id and second or first)
    if not is_known[member_id] then known = 0 end
  end
  ledger.known = known
  return function(member_id) return is_known[member_id] end
end

-- Returns everybody of whom charges may count, as far as all of them are known.
local function names()
  local list, is_sorted = {}, true
  if learning and #learning.named == 0 then return list end
  for at = 1, #roll, 2 do
    if roll[at + 1] == 1 then list[#list + 1] = roll[at] end
  end
  local more = { learning and learning.named or {}, missing_ones and missing_ones.names or {} }
  for i = 1, 2 do
    for k = 1, #more[i] do
      insert(list, more[i][k])
      is_sorted = false
    end
  end
  if not is_sorted then table.sort(list) end
  return list
end

-- Service of flows ---------------------------------------------------------------------------------------------------

-- What is remembered of each flow that was looked at (false: nothing), and when it last waited or was served.
local tags, tags_seen, is_tag_new, tags_gone = {}, {}, {}, {}

local function load_tags(flows)
  local ask = {}
  for i = 1, #flows do
    local flow = flows[i]
    if tags[flow] == nil then
      tags[flow] = false
      ask[#ask + 1] = flow
    end
  end
  if ledger.tags == 0 or forgotten then return end
  for first = 1, #ask, 1000 do
    local got = redis_call('HMGET', KEYS[2], unpack(ask, first, min(first + 999, #ask)))
    for i = 1, #got do
      local flow = ask[first + i - 1]
      if got[i] then tags[flow], tags_seen[flow] = decode(got[i]) end
    end
  end
end

-- Returns the service of a flow. Whoever was not there lately begins with those who are.
local function tag_of(now, flow, tier)
  local tag, base = tags[flow], ledger.virtual[tier % 4]
  if not tag then return base end
  return less(now, tags_seen[flow]) <= THERE and tag or max(tag, base)
end

local function correct_tag(flow, tier, by)
  local tag = tags[flow]
  if not tag then return end
  is_tag_new[flow] = true
  tags[flow] = by > 0 and tag + by or max(less(tag, -by), min(ledger.virtual[tier % 4], tag))
end

-- Forgets the flows that others have caught up with and that are not there.
local function prune_tags(now)
  if not forgotten then
    local all = redis_call('HGETALL', KEYS[2])
    for i = 1, #all, 2 do
      if tags[all[i]] == nil then tags[all[i]], tags_seen[all[i]] = decode(all[i + 1]) end
    end
  end
  local count = 0
  for flow, tag in pairs(tags) do
    if tag then
      if tag > ledger.virtual[tonumber(flow:sub(1, 1))] or less(now, tags_seen[flow]) <= THERE then
        count = count + 1
      else
        tags[flow] = false
        tags_gone[#tags_gone + 1] = flow
      end
    end
  end
  ledger.tags = count
end

-- Remembers the service of a flow. Where so many are ahead of the others, or still there, a newcomer's is not.
local function put_tag(now, flow, tag)
  local is_known = tags[flow]
  if not is_known and ledger.tags >= TAGS_MAX then prune_tags(now) end
  if is_known or ledger.tags < TAGS_MAX then
    if not is_known then ledger.tags = ledger.tags + 1 end
    tags[flow], tags_seen[flow], is_tag_new[flow] = tag, now, true
  end
end

