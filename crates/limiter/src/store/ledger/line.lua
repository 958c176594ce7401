-- The line -----------------------------------------------------------------------------------------------------------

Line = {
  -- Requests are lists of numbers as they are kept: tier, tenant, cost, service, arrived, count, and limit, take and hold so
  -- many times. `at` is the place of the count.

  -- Returns what is in use of a limit: charges, what is held, and what is kept for those who are cut off.
  total_of = function(now, ring)
    local total = ring.live + ring.held + ring.kept + (ring.part > 0 and 1 or 0)
    if missing_ones and now <= missing_ones.last + ring.life and ring.since <= missing_ones.last then
      local limit, theirs = Ring.limit(ring), missing_ones.shares
      local whole = floor(limit / K.SHARES)
      total = total + whole * theirs + floor(((limit - whole * K.SHARES) * theirs + K.SHARES - 1) / K.SHARES)
    end
    return total
  end,

  -- Returns why nobody is let in now, if that is so.
  closed = function(now)
    if learning then
      local may_try = learning.is_fresh and (learning.tried_at < 0 or less(now, learning.tried_at) >= K.TRIAL_LIFE)
      if not may_try then return K.BY_LEARNING end
    end
    return now < ledger.paused_until and K.BY_PAUSE or nil
  end,

  fits = function(list, at)
    for k = at + 1, at + 3 * list[at], 3 do
      local limit = Ring.limit(ledger.rings[list[k]])
      local weight = min(list[k + 1] + list[k + 2], limit)
      if weight > 0 and run.totals[list[k]] + weight > limit then return false end
    end
    return true
  end,

  -- Returns when somebody will fit (0: nobody knows), and the limit that is the last to let them.
  earliest = function(now, list, at)
    local latest, by = now, 0
    for k = at + 1, at + 3 * list[at], 3 do
      local ring = ledger.rings[list[k]]
      local limit = Ring.limit(ring)
      local weight = min(list[k + 1] + list[k + 2], limit)
      local over = run.totals[list[k]] + weight - limit
      if weight > 0 and over > 0 then
        local free = Ring.freed_at(ring, over)
        if free == 0 then return 0, ring.name end
        if free > latest or by == 0 then by = ring.name end
        latest = max(latest, free)
      end
    end
    return latest, by
  end,

  -- Returns what others may take of each limit before somebody who will fit at a moment.
  spare_before = function(moment, list, at)
    local spare = {}
    for k = at + 1, at + 3 * list[at], 3 do
      local ring = ledger.rings[list[k]]
      local limit = Ring.limit(ring)
      local left = less(run.totals[list[k]], Ring.freed_by(ring, moment)) + min(list[k + 1] + list[k + 2], limit)
      spare[list[k]] = less(limit, left)
    end
    return spare
  end,

  -- Returns whether somebody who fits may go before the first who does not.
  passes = function(one, barrier)
    if one.tier == barrier.tier and one.tenant ~= barrier.tenant and one.key + one.service > barrier.served then return false end
    if barrier.moment == 0 then return false end
    local list, at = one.list, one.at
    for k = at + 1, at + 3 * list[at], 3 do
      local spare = barrier.spare[list[k]]
      if spare and list[k + 1] + list[k + 2] > spare then return false end
    end
    return true
  end,

  -- Puts the requests of one replica into the line.
  line_up = function(line, list, owner, waiter)
    local first, at, order = #line + 1, 1, 0
    while list[at] do
      local tier, tenant = list[at], list[at + 1]
      order = order + 1
      line[#line + 1] = {
        due = 1, tier = tier, tenant = tenant, flow = tier .. tenant, cost = list[at + 2], service = list[at + 3],
        arrived = list[at + 4], owner = owner, order = order, list = list, at = at + 5, waiter = waiter,
      }
      at = at + 6 + 3 * list[at + 5]
    end
    -- When the oldest came of those of its flow that its replica does not send before it.
    local oldest = {}
    for i = #line, first, -1 do
      local one = line[i]
      one.since = min(oldest[one.flow] or one.arrived, one.arrived)
      oldest[one.flow] = one.since
    end
  end,

  came_first = function(a, b)
    if a.since ~= b.since then return a.since < b.since end
    if a.owner ~= b.owner then return a.owner < b.owner end
    return a.order < b.order
  end,

  -- A flow's requests go in the order in which they came, wherever they wait; those of one replica in its own.
  count_service = function(now, line)
    if #line > 1 then table.sort(line, Line.came_first) end
    local ahead = {}
    for i = 1, #line do
      local one = line[i]
      local before = ahead[one.flow] or 0
      one.key = Tags.of(now, one.flow, one.tier) + before
      ahead[one.flow] = before + one.service
    end
  end,

  goes_first = function(a, b)
    if a.due ~= b.due then return a.due < b.due end
    if a.tier ~= b.tier then return a.tier < b.tier end
    if a.key ~= b.key then return a.key < b.key end
    if a.arrived ~= b.arrived then return a.arrived < b.arrived end
    if a.owner ~= b.owner then return a.owner < b.owner end
    return a.order < b.order
  end,

  -- Puts the line in the order in which its requests are entitled to go.
  sort = function(line)
    table.sort(line, Line.goes_first)
    local left, is_due = { ledger.credit[1], ledger.credit[2], ledger.credit[3] }, false
    for i = 1, #line do
      -- As many are due as what their tier has earned is enough for.
      local one = line[i]
      local credit, cost = left[one.tier] or 0, min(one.cost, K.WINDOW_COST)
      if credit == 0 or credit < cost then
        left[one.tier] = 0
      else
        one.due, left[one.tier], is_due = 0, credit - cost, true
      end
    end
    if is_due then table.sort(line, Line.goes_first) end
  end,

  -- Counts the service of somebody who is let in while others wait.
  serve = function(now, one, first_key, waits)
    local tier, flow = one.tier, one.flow
    local virtual, credit, share_of = ledger.virtual, ledger.credit, { [0] = tier_0, tier_1, tier_2, tier_3 }
    local tag = Tags.of(now, flow, tier)
    virtual[tier] = max(virtual[tier], min(tag, first_key[tier]))
    Tags.put(now, flow, tag + one.service)
    for each = 0, 3 do
      credit[each] = waits[each] and min(credit[each] + floor(one.cost * share_of[each] / 100), K.WINDOW_COST) or 0
    end
    credit[tier] = less(credit[tier], one.cost)
  end,

  wake = function(waiter, moment)
    if waiter.woken == 0 or moment < waiter.woken then
      waiter.woken = moment
      run.wakenings[#run.wakenings + 1] = waiter.id
      run.wakenings[#run.wakenings + 1] = moment
    end
  end,

  -- Returns whether somebody would fit if everybody knew what was refunded.
  waits_for_refund = function(now, members, list, at)
    for k = at + 1, at + 3 * list[at], 3 do
      local ring = ledger.rings[list[k]]
      local limit = Ring.limit(ring)
      local weight = min(list[k + 1] + list[k + 2], limit)
      local over = run.totals[list[k]] + weight - limit
      if weight > 0 and over > 0 then
        local sum = { kept = 0, part = 0 }
        for i = 1, #members do
          local member = members[i]
          local ends = Replica.share_ends(member)
          if member and Replica.is_there(member, now) and Replica.is_in_touch(member, now) and now <= ends + ring.life and ring.since <= ends then
            local mark = member[K.MARK + K.PER_RING * ring.index] or -1
            if mark >= 0 then Ring.keep(sum, ring.refunded - mark, max(member[K.TOLD_SHARE], member[K.SHARE])) end
          end
        end
        if over > sum.kept + (sum.part > 0 and 1 or 0) then return false end
      end
    end
    return true
  end,

  -- Asks everybody to look at what was refunded, if somebody waits for nothing else: a part of it is kept for those who may
  -- still count on its expiry.
  look_around = function(now, me, others, list, at)
    if less(now, ledger.round_at) < K.ROUND_EVERY then return end
    local is_kept = true
    for k = at + 1, at + 3 * list[at], 3 do
      local ring = ledger.rings[list[k]]
      local limit = Ring.limit(ring)
      local weight = min(list[k + 1] + list[k + 2], limit)
      if weight > 0 and run.totals[list[k]] + weight > limit and (ring.rate == 0 or ring.kept + ring.part == 0) then is_kept = false end
    end
    if not is_kept then return end
    local members = Replica.read_all(me)
    if not Line.waits_for_refund(now, members, list, at) then return end
    ledger.round_at = now
    for i = 1, #ledger.rings do ledger.rings[i].round = ledger.rings[i].refunded end
    for i = 1, #members do
      local member, member_id, is_behind, waiter = members[i], run.roll[2 * i - 1], false, nil
      for k = 1, #ledger.rings do
        if member and Replica.is_behind(member, ledger.rings[k], ledger.rings[k].round) then is_behind = true end
      end
      if is_behind and member_id ~= replica and Replica.is_there(member, now) then
        for k = 1, #others do
          if others[k].id == member_id then waiter = others[k] end
        end
        if waiter then
          Line.wake(waiter, now)
        else
          run.wakenings[#run.wakenings + 1] = member_id
          run.wakenings[#run.wakenings + 1] = now
        end
      end
    end
  end,

  grant = function(now, me, list, at)
    for k = at + 1, at + 3 * list[at], 3 do
      local ring, take, hold = ledger.rings[list[k]], list[k + 1], list[k + 2]
      Ring.charge(ring, now, now, take)
      run.taken[list[k]] = (run.taken[list[k]] or 0) + take
      if hold > 0 then
        local held = K.HELD + K.PER_RING * list[k]
        me[held] = me[held] + hold
        if me[K.LEFT] == 0 then ring.held = ring.held + hold end
      end
    end
    if learning then learning.tried_at = now end
  end,

  -- Returns everybody who wants to be let in, in order.
  form = function(now, others)
    local lists, flows = {}, {}
    if #others > 0 then
      local fields = {}
      for i = 1, #others do fields[i] = format('h%.0f', others[i].id) end
      lists = redis_call('HMGET', KEYS[1], unpack(fields))
      for i = 1, #others do
        local list, at = { decode(lists[i]) }, 1
        lists[i] = list
        while list[at] do
          flows[#flows + 1] = list[at] .. list[at + 1]
          at = at + 6 + 3 * list[at + 5]
        end
      end
      Tags.load(flows)
    end
    local line = {}
    for i = 1, #others do Line.line_up(line, lists[i], others[i].id, others[i]) end
    Line.line_up(line, asks, replica)
    Line.count_service(now, line)
    Line.sort(line)
    return line
  end,

  -- Lets those of the caller's requests in whose turn it is, and finds out who goes next. Returns who was let in, by order
  -- (nil: not), why the first that was not was not, by which limit, when to call again, and whether it has to be shown what
  -- was refunded.
  pass = function(now, me)
    local others, granted = {}, {}
    local denial, denied_by, wake_at = K.BY_NONE, 0, 0
    for i = 1, #ledger.waiters do
      local waiter = ledger.waiters[i]
      if less(now, waiter.beat) <= K.SILENT_AFTER then others[#others + 1] = waiter end
    end
    if #asks == 0 and #others == 0 then return granted, denial, denied_by, wake_at, false end
    local line = Line.form(now, others)
    local is_contended = #others > 0 or #line > 1
    local waits, first_key = {}, {}
    for i = 1, #line do
      local one = line[i]
      waits[one.tier] = true
      first_key[one.tier] = min(first_key[one.tier] or one.key, one.key)
      if is_contended then Tags.put(now, one.flow, Tags.of(now, one.flow, one.tier)) end
    end
    for i = 1, #ledger.rings do run.totals[i] = Line.total_of(now, ledger.rings[i]) end
    local is_known, barrier = Replica.acquaintance(now, me), nil
    for i = 1, #line do
      local one = line[i]
      local list, at, is_own = one.list, one.at, not one.waiter
      local shut = Line.closed(now)
      if not is_known(one.owner) then
        if is_own and denial == K.BY_NONE then denial = K.BY_LEARNING end
      elseif not shut and Line.fits(list, at) and (not barrier or Line.passes(one, barrier)) then
        for k = at + 1, at + 3 * list[at], 3 do
          local weight = list[k + 1] + list[k + 2]
          run.totals[list[k]] = run.totals[list[k]] + weight
          if barrier and barrier.spare[list[k]] then barrier.spare[list[k]] = less(barrier.spare[list[k]], weight) end
        end
        if is_own then
          Line.grant(now, me, list, at)
          if is_contended then Line.serve(now, one, first_key, waits) end
          granted[one.order] = true
        else
          Line.wake(one.waiter, now)
        end
      elseif barrier then
        if is_own and denial == K.BY_NONE then denial = shut or K.BY_LINE end
      else
        if not shut then Line.look_around(now, me, others, list, at) end
        local moment, by = Line.earliest(now, list, at)
        if moment > 0 then moment = max(moment, ledger.paused_until) end
        barrier = {
          tier = one.tier, tenant = one.tenant, served = one.key + one.service, moment = moment,
          spare = Line.spare_before(moment, list, at),
        }
        if is_own then
          denial, denied_by = shut or K.BY_LIMIT, by
          if shut ~= K.BY_LEARNING then wake_at = moment end
        elseif moment > 0 and shut ~= K.BY_LEARNING then
          Line.wake(one.waiter, moment)
        end
      end
    end
    local is_behind = false
    for i = 1, barrier and #run.rings or 0 do
      local ring = run.rings[i]
      if Replica.is_behind(me, ring, ring.round) then is_behind = true end
    end
    -- That it has looked is known when it calls again.
    return granted, denial, denied_by, is_behind and now or wake_at, is_behind
  end,
}

