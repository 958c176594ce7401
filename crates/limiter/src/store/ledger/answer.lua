-- An answer ----------------------------------------------------------------------------------------------------------

-- The rings of the call's limits, in their order.
local rings = {}

-- Finds the rings of the call's limits, lets time pass in them, and reads what the call will need of them.
local function prepare(now)
  local by_name, life = {}, 0
  for i = 1, #ledger.rings do by_name[ledger.rings[i].name] = ledger.rings[i] end
  local wanted = {}
  for i = 1, #limits / LIMIT do
    local at = LIMIT * (i - 1) + 1
    local ring = by_name[limits[at]]
    if not ring then
      ring = open_ring({
        name = limits[at], life = 0, asked = 0, width = 1, amount = 0, told = 0, source = 0, since = 0, ends = 0, live = 0,
        low = 1, top = 0, size = 0, others = 0, index = #ledger.rings + 1,
      })
      ledger.rings[ring.index], by_name[ring.name] = ring, ring
    end
    ring.key = KEYS[2 + i]
    rings[i] = ring
    adopt(ring, now, at)
    wanted[i] = {}
    if #asks > 0 then wanted[i][1] = floor(now / ring.width) end
    local first = first_live(ring, now)
    if first <= ring.top then
      for bucket = ring.low, min(first - 1, ring.low + SLOT) do wanted[i][#wanted[i] + 1] = bucket end
    end
  end
  for at = 1, #entries, 4 do
    local kind, i = entries[at], entries[at + 1]
    if kind <= 2 and rings[i] then
      local stamp = entries[at + 2]
      if stamp == 0 and kind == 2 then stamp = now end
      wanted[i][#wanted[i] + 1] = floor(stamp / rings[i].width)
    end
  end
  for i = 1, #rings do
    local ring = rings[i]
    load(ring, wanted[i])
    advance(ring, first_live(ring, now))
  end
  for i = 1, #ledger.rings do life = max(life, ledger.rings[i].life) end
  -- The requests name limits by their place in the call.
  local at = 6
  while asks[at] do
    for k = at + 1, at + 3 * asks[at], 3 do asks[k] = rings[asks[k]].index end
    at = at + 6 + 3 * asks[at]
  end
  return life
end

-- Notes who calls, and what it holds. Returns its record.
local function meet(now, me)
  local was_there, old_share = me and is_there(me, now), me and me[LEFT] == 0 and me[SHARE] or 0
  if me then
    count_held(me, now, -1)
  else
    me = { 0, now, now, 0, 0, 0, 0 }
  end
  for i = 1, #ledger.rings do
    local held, seen_at = HELD + 2 * i, SEEN + 2 * i
    me[held], me[seen_at] = me[held] or 0, me[seen_at] or 0
  end
  for i = 1, #rings do me[HELD + 2 * rings[i].index] = limits[LIMIT * i] end
  me[SEQUENCE], me[BEAT], me[SHARE_LIFE], me[LEASE] = sequence, now, share_life, lease
  ledger.shares = ledger.shares - old_share
  if was_there then ledger.there = ledger.there - 1 end
  if leaves then
    me[LEFT], me[SHARE] = 1, 0
  else
    local all = min(shares, SHARES)
    ledger.there = ledger.there + 1
    me[SHARE] = min(floor(all / ledger.there), less(all, ledger.shares))
    ledger.shares = ledger.shares + me[SHARE]
  end
  if leaves or not was_there then enroll(replica, leaves and 0 or 1) end
  return me
end

-- Reads what is remembered of the flows that the call speaks of.
local function read_flows()
  local flows, lists = {}, { entries }
  for i = 1, #missed do lists[i + 1] = missed[i][2] end
  for i = 1, #lists do
    local list = lists[i]
    for at = 1, #list, 4 do
      if list[at] == 6 then flows[#flows + 1] = list[at + 1] .. list[at + 2] end
    end
  end
  local at = 1
  while asks[at] do
    flows[#flows + 1] = asks[at] .. asks[at + 1]
    at = at + 6 + 3 * asks[at + 5]
  end
  load_tags(flows)
end

-- Enters corrections.
local function enter(now, list)
  for k = 1, #list, 4 do
    local kind, a, b, c = list[k], list[k + 1], list[k + 2], list[k + 3]
    local ring = kind <= 4 and rings[a]
    if kind == 5 then
      ledger.paused_until = max(ledger.paused_until, a)
    elseif kind == 6 then
      correct_tag(a .. b, a, c)
    elseif not ring then
      -- It speaks of a limit that is none of the call's.
    elseif kind == 1 then
      refund(ring, b, c)
    elseif kind == 2 then
      charge(ring, now, b == 0 and now or b, c)
    elseif kind == 3 then
      charge(ring, now, now, less(b, ring.live))
      if learning and ring.name % 8 < 5 then learning.proven[#learning.proven + 1] = ring.name % 8 end
    elseif ring.told ~= b or ring.source ~= c then
      ring.told, ring.source = b, c
      ledger.facts_version = ledger.facts_version + 1
    end
  end
end

-- Makes up for calls whose answers were given up.
local function make_up(now, me)
  local last = me and me[SEQUENCE] or 0
  for i = 1, #missed do
    local its_sequence, its_entries, takes = unpack(missed[i])
    if its_sequence > last then
      enter(now, its_entries)
    elseif me and its_sequence == last then
      -- Its moment is the third number of what was answered, and who was let in is told from the thirteenth on.
      local answered = { decode(redis_call('HGET', KEYS[1], 'a' .. id)) }
      for order = 1, answered[12] do
        for k = 1, answered[12 + order] == 1 and #rings or 0 do
          local take = takes[#rings * (order - 1) + k]
          if take then refund(rings[k], answered[3], take) end
        end
      end
    end
  end
end

-- Takes note of what a replica knows of lost charges.
local function sow(now)
  for i = 1, #rings do
    local ring = rings[i]
    load_slots(ring)
    if ring.low <= ring.top then load_range(ring, ring.low, ring.top) end
  end
  for at = 1, #own, 3 do
    local ring = rings[own[at]]
    if ring then charge(ring, now, own[at + 1], own[at + 2]) end
  end
  if not learning then return end
  learning.is_fresh = false
  learning.seeded[#learning.seeded + 1] = replica
  learning.named[#learning.named + 1] = replica
  for i = 1, #names do learning.named[#learning.named + 1] = names[i] end
  local slots, place = learning.slots, {}
  for at = 1, #slots, 3 do place[slots[at] .. ':' .. format('%.0f', slots[at + 1])] = at end
  for k = 1, #seen, 3 do
    local ring = rings[seen[k]]
    if ring then
      local name = ring.index .. ':' .. format('%.0f', seen[k + 1])
      local at = place[name]
      if not at then
        at = #slots + 1
        place[name], slots[at], slots[at + 1], slots[at + 2] = at, ring.index, seen[k + 1], 0
      end
      slots[at + 2] = max(slots[at + 2], seen[k + 2])
    end
  end
end

local function has_all(set, wanted)
  local has = {}
  for i = 1, #set do has[set[i]] = true end
  for i = 1, #wanted do
    if not has[wanted[i]] then return false end
  end
  return true
end

-- Ends learning if enough is known.
local function learn(now)
  local is_fresh = learning.is_fresh
  local all_said = not is_fresh and now >= learning.began + LEARNING_MIN and has_all(learning.seeded, learning.named)
  local all_proven = is_fresh and #learning.proven > 0
  if all_proven then
    local wanted = {}
    for i = 1, #rings do
      local dimension = rings[i].name % 8
      if floor(rings[i].name / 8) <= WINDOW_MAX and dimension ~= 4 then wanted[#wanted + 1] = dimension end
    end
    all_proven = has_all(learning.proven, wanted)
  end
  if not all_said and not all_proven and now < learning.last then return end
  -- What anybody saw and nobody has owned up to was charged by somebody who is gone. First all sums, then the charges.
  local slots, missing = learning.slots, {}
  for at = 1, #slots, 3 do
    local ring = ledger.rings[slots[at]]
    load_slots(ring)
    missing[at] = less(slots[at + 2], ring.s[slots[at + 1]] or 0)
  end
  for at = 1, #slots, 3 do
    local ring = ledger.rings[slots[at]]
    charge(ring, now, ((slots[at + 1] + 1) * SLOT - 1) * ring.width, missing[at])
  end
  learning = nil
end

-- Returns those of the call's requests that wait on, at most so many.
local function waiting(granted)
  local list, at, order, count = {}, 1, 0, 0
  while asks[at] do
    order = order + 1
    local size = 6 + 3 * asks[at + 5]
    if not granted[order] and count < HEADS_MAX then
      count = count + 1
      for k = at, at + size - 1 do list[#list + 1] = asks[k] end
    end
    at = at + size
  end
  return list
end

local function push_facts(reply)
  if known_facts == ledger.facts_version then
    reply[#reply + 1] = 0
    return
  end
  local told = {}
  for i = 1, #ledger.rings do
    if ledger.rings[i].source > 0 then told[#told + 1] = ledger.rings[i] end
  end
  table.sort(told, function(a, b) return a.name < b.name end)
  reply[#reply + 1] = #told
  for i = 1, #told do
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3] = told[i].name, told[i].told, told[i].source
  end
end

-- Adds who is there, and everybody's charges in slots.
local function push_view(reply)
  read_roll()
  local count_at = #reply + 1
  reply[count_at] = 0
  for at = 1, #roll, 2 do
    if roll[at + 1] == 1 then reply[#reply + 1] = roll[at] end
  end
  reply[count_at] = #reply - count_at
  reply[#reply + 1] = #rings
  for i = 1, #rings do
    local ring = rings[i]
    load_slots(ring)
    count_at = #reply + 1
    reply[count_at] = 0
    local n = count_at
    if ring.low <= ring.top then
      for slot = floor(ring.low / SLOT), floor(ring.top / SLOT) do
        local sum = ring.s[slot] or 0
        if sum > 0 then reply[n + 1], reply[n + 2], n = slot, sum, n + 2 end
      end
    end
    reply[count_at] = (n - count_at) / 2
  end
end

-- Does what is asked. Returns the reply, and the fields of the state that change, but for the ledger's own.
local function answer(now, me)
  local life = prepare(now)
  if now >= ledger.recount_at or life ~= ledger.life then me = recount(now, life, me) end
  read_flows()
  make_up(now, me)
  me = meet(now, me)
  local waited = stop_waiting(replica)
  enter(now, entries)
  if own then sow(now) end
  if learning then learn(now) end
  local granted, denial, denied_by, wake_at = pass(now, me)
  local count = 0
  local reply = brief(now, learning and LEARNING or OPEN)
  reply[4], reply[5], reply[8], reply[9], reply[10] = ledger.there, me[SHARE], denial, denied_by, wake_at
  local n, at = 12, 1
  local flows = {}
  while asks[at] do
    count = count + 1
    reply[n + count] = granted[count] and 1 or 0
    flows[count] = tag_of(asks[at] .. asks[at + 1], asks[at])
    at = at + 6 + 3 * asks[at + 5]
  end
  reply[n], n = count, n + count + 1
  reply[n] = #rings
  for i = 1, #rings do
    local ring = rings[i]
    reply[n + i] = ring.live + ring.others + (me[LEFT] == 0 and me[HELD + 2 * ring.index] or 0)
  end
  n = n + #rings + 1
  reply[n] = count
  for i = 1, count do reply[n + i] = flows[i] end
  push_facts(reply)
  local is_denied = false
  for i = 1, count do is_denied = is_denied or not granted[i] end
  local is_seen = wants_view or is_denied
  for i = 1, #rings do
    local seen_at, live = SEEN + 2 * rings[i].index, rings[i].live
    me[seen_at] = is_seen and live or max(live, me[seen_at])
  end
  count_held(me, now, 1)
  ledger.recount_at = min(ledger.recount_at, changes_at(me, now, life))
  -- Whoever repeats a call does not need to see everything again.
  n = #reply
  reply[n + 1], reply[n + 2] = 0, 0
  local fields = { 'm' .. id, pack(unpack(me)), 'a' .. id, pack(unpack(reply)) }
  if is_seen then
    reply[n + 1], reply[n + 2] = nil, nil
    push_view(reply)
  end
  local list = is_denied and not leaves and waiting(granted)
  if list then
    fields[5], fields[6] = 'h' .. id, pack(unpack(list))
    ledger.waiters[#ledger.waiters + 1] = { id = replica, beat = now, woken = wake_at }
  elseif waited then
    gone[#gone + 1] = 'h' .. id
  end
  if is_roll_new then
    fields[#fields + 1] = 'i'
    fields[#fields + 1] = pack(unpack(roll))
  end
  return reply, fields
end

