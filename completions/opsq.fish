# Completion of opsq for fish. Made by `opsq completion fish`. To have it:
#   opsq completion fish > ~/.config/fish/completions/opsq.fish

function __opsq_words
    set -l command (commandline -opc)
    $command[1] completion --words $argv[1] 2>/dev/null
end

# The words of a list that is separated by commas: what is there already, and each of the words.
function __opsq_list
    set -l current (commandline -ct | string replace -r '^--?[^=]*=' '')
    set -l before (string match -r '^.*,' -- $current)
    for word in (__opsq_words $argv[1])
        echo $before$word
    end
end

function __opsq_below
    switch $argv[1]
        case ''
            string split ' ' 'up down status start stop restart signal scale reload logs generate worker monitor flower beat agent queues tasks results dead schedule workers run init config completion doctor'
        case 'queues'
            string split ' ' 'pause peek purge resume'
        case 'dead'
            string split ' ' 'drop requeue show'
        case 'schedule'
            string split ' ' 'add next pause remove resume run'
        case 'run'
            string split ' ' 'host-batch task'
    end
end

function __opsq_takes
    switch "$argv[1] $argv[2]"
        case 'up -c' 'up --configuration' 'up --log-format'
            return 0
        case 'logs -n' 'logs --lines' 'logs --log-format'
            return 0
        case 'generate -o' 'generate --output' 'generate --user'
            return 0
        case 'worker -n' 'worker --hostname' 'worker -l' 'worker --loglevel' 'worker -c' 'worker --concurrency' 'worker -P' 'worker --pool' 'worker -Q' 'worker --queues' 'worker -X' 'worker --exclude-queues' 'worker -I' 'worker --include' 'worker --time-limit' 'worker --soft-time-limit' 'worker --max-tasks-per-child' 'worker --max-memory-per-child' 'worker --prefetch-multiplier' 'worker --lease' 'worker -f' 'worker --logfile' 'worker --log-format' 'worker --pidfile' 'worker --uid' 'worker --gid' 'worker --umask' 'worker -O' 'worker --optimization' 'worker --heartbeat-interval' 'worker --autoscale' 'worker -s' 'worker --schedule' 'worker --schedule-filename' 'worker --scheduler' 'worker -S' 'worker --statedb' 'worker --pool-start-method' 'worker --executable' 'worker --loader'
            return 0
        case 'monitor --address' 'monitor --port' 'monitor --basic-auth' 'monitor --basic_auth' 'monitor --url-prefix' 'monitor --url_prefix' 'monitor --certfile' 'monitor --keyfile' 'monitor --history' 'monitor --history-age' 'monitor -l' 'monitor --loglevel' 'monitor -f' 'monitor --logfile' 'monitor --log-format' 'monitor --pidfile' 'monitor --uid' 'monitor --gid' 'monitor --umask'
            return 0
        case 'flower --address' 'flower --port' 'flower --basic-auth' 'flower --basic_auth' 'flower --url-prefix' 'flower --url_prefix' 'flower --certfile' 'flower --keyfile' 'flower --history' 'flower --history-age' 'flower -l' 'flower --loglevel' 'flower -f' 'flower --logfile' 'flower --log-format' 'flower --pidfile' 'flower --uid' 'flower --gid' 'flower --umask'
            return 0
        case 'beat -s' 'beat --schedule' 'beat --schedule-filename' 'beat -S' 'beat --scheduler' 'beat --max-interval' 'beat -l' 'beat --loglevel' 'beat -f' 'beat --logfile' 'beat --log-format' 'beat --pidfile' 'beat --uid' 'beat --gid' 'beat --umask'
            return 0
        case 'agent --name' 'agent --tag' 'agent --tags' 'agent --slots' 'agent --lease' 'agent --stop-wait' 'agent -l' 'agent --loglevel' 'agent -f' 'agent --logfile' 'agent --log-format' 'agent --pidfile' 'agent --uid' 'agent --gid' 'agent --umask'
            return 0
        case 'queues --limit'
            return 0
        case 'queues peek --limit'
            return 0
        case 'tasks --name' 'tasks --state' 'tasks -Q' 'tasks --queue' 'tasks --worker' 'tasks --since' 'tasks --grep' 'tasks --limit'
            return 0
        case 'results --name' 'results --state' 'results -Q' 'results --queue' 'results --worker' 'results --since' 'results --grep' 'results --limit'
            return 0
        case 'dead -Q' 'dead --queue' 'dead --limit'
            return 0
        case 'dead drop -Q' 'dead drop --queue'
            return 0
        case 'dead requeue -Q' 'dead requeue --queue'
            return 0
        case 'dead show -Q' 'dead show --queue'
            return 0
        case 'schedule --limit'
            return 0
        case 'schedule add --every' 'schedule add --cron' 'schedule add --timezone' 'schedule add --args' 'schedule add --kwargs' 'schedule add --queue' 'schedule add --priority' 'schedule add --expires' 'schedule add --jitter' 'schedule add --overlap' 'schedule add --missed' 'schedule add --missed-limit'
            return 0
        case 'workers --limit'
            return 0
        case 'run host-batch --hosts' 'run host-batch --timeout'
            return 0
        case 'run task --timeout' 'run task -Q' 'run task --queue' 'run task --countdown'
            return 0
        case '* --app' '* --broker' '* --config' '* --result-backend' '* --state-dir' '* --workdir' '* -A' '* -b'
            return 0
    end
    return 1
end

# Whether the cursor stands at this command; with a second word, at the argument of this number, or ("+") from it on.
function __opsq_at
    set -l words (commandline -opc)
    set -l path ""
    set -l skip 0
    set -l at 0
    for word in $words[2..-1]
        if test $skip = 1
            set skip 0
        else if string match -q -- '-*' $word
            if not string match -q -- '*=*' $word; and __opsq_takes "$path" $word
                set skip 1
            end
        else if contains -- $word (__opsq_below "$path")
            set path (string trim "$path $word")
            set at 0
        else
            set at (math $at + 1)
        end
    end
    test "$path" = "$argv[1]"; or return 1
    switch "$argv[2]"
        case ''
            return 0
        case '*+'
            test $at -ge (string trim -rc + $argv[2])
        case '*'
            test $at = $argv[2]
    end
end

complete -c opsq -f
complete -c opsq -n '__opsq_at \'\' 0' -a up -d 'Start what this project needs (or the named programs and...'
complete -c opsq -n '__opsq_at \'\' 0' -a down -d 'Stop everything that `up` started, the private Redis last.'
complete -c opsq -n '__opsq_at \'\' 0' -a status -d 'Show what runs and what waits.'
complete -c opsq -n '__opsq_at \'\' 0' -a start -d 'Start programs (names, groups, or all) and what they need.'
complete -c opsq -n '__opsq_at \'\' 0' -a stop -d 'Stop programs (names, groups, or all); they stay stopped...'
complete -c opsq -n '__opsq_at \'\' 0' -a restart -d 'Stop programs (names, groups, or all) and start them again.'
complete -c opsq -n '__opsq_at \'\' 0' -a signal -d 'Send a signal to the main processes of programs (names,...'
complete -c opsq -n '__opsq_at \'\' 0' -a scale -d 'Run so many copies of a program, until `down`; what is...'
complete -c opsq -n '__opsq_at \'\' 0' -a reload -d 'Read the project\'s file again: start what is new, stop...'
complete -c opsq -n '__opsq_at \'\' 0' -a logs -d 'Show what programs wrote.'
complete -c opsq -n '__opsq_at \'\' 0' -a generate -d 'Print units that run this project as `opsq up` does, or...'
complete -c opsq -n '__opsq_at \'\' 0' -a worker -d 'Run a worker in the foreground.'
complete -c opsq -n '__opsq_at \'\' 0' -a monitor -d 'Show in a browser what runs, what waits and what came of...'
complete -c opsq -n '__opsq_at \'\' 0' -a flower -d 'Show in a browser what runs, what waits and what came of...'
complete -c opsq -n '__opsq_at \'\' 0' -a beat -d 'Send the app\'s periodic tasks when they are due.'
complete -c opsq -n '__opsq_at \'\' 0' -a agent -d 'Take signed orders for this host, run them, and answer.'
complete -c opsq -n '__opsq_at \'\' 0' -a queues -d 'What waits in each queue, and for how long; who consumes it.'
complete -c opsq -n '__opsq_at \'\' 0' -a tasks -d 'The app\'s tasks with what they say about themselves, and...'
complete -c opsq -n '__opsq_at \'\' 0' -a results -d 'The state, the value or the error of a task; without an...'
complete -c opsq -n '__opsq_at \'\' 0' -a dead -d 'Messages that failed for good, newest first: why, and when.'
complete -c opsq -n '__opsq_at \'\' 0' -a schedule -d 'The entries of the schedule with their last and next run,...'
complete -c opsq -n '__opsq_at \'\' 0' -a workers -d 'The opsq workers that are alive: where, for which queues,...'
complete -c opsq -n '__opsq_at \'\' 0' -a run -d 'Run something: a task on the workers, or a command on hosts.'
complete -c opsq -n '__opsq_at \'\' 0' -a init -d 'Write an opsq.toml and a first tasks.py, here or in FOLDER.'
complete -c opsq -n '__opsq_at \'\' 0' -a config -d 'Show the settings that are not the default (or those that...'
complete -c opsq -n '__opsq_at \'\' 0' -a completion -d 'Print the script for a shell; its first lines say where...'
complete -c opsq -n '__opsq_at \'\' 0' -a doctor -d 'Look at the broker, the queues, the schedule and this...'
complete -c opsq -n '__opsq_at \'\'' -l version -d 'Show the version.'
complete -c opsq -n '__opsq_at \'\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'up\'' -s c -l configuration -r -F -d 'An opsq.toml, or a supervisord.conf with [program:x].'
complete -c opsq -n '__opsq_at \'up\'' -l foreground -d 'Stay here and show all logs; Ctrl-C stops everything.'
complete -c opsq -n '__opsq_at \'up\'' -l log-format -x -a 'text json' -d 'json: --foreground shows objects.'
complete -c opsq -n '__opsq_at \'up\'' -s d -l detach -d 'What it does anyway, without --foreground.'
complete -c opsq -n '__opsq_at \'up\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'up\' 0+' -a '(__opsq_words programs)'
complete -c opsq -n '__opsq_at \'down\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'status\'' -l watch -d 'Show it again each second, until Ctrl-C.'
complete -c opsq -n '__opsq_at \'status\'' -l all -d 'All supervisors of this user.'
complete -c opsq -n '__opsq_at \'status\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'status\' 0+' -a '(__opsq_words programs)'
complete -c opsq -n '__opsq_at \'start\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'start\' 0+' -a '(__opsq_words targets)'
complete -c opsq -n '__opsq_at \'stop\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'stop\' 0+' -a '(__opsq_words targets)'
complete -c opsq -n '__opsq_at \'restart\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'restart\' 0+' -a '(__opsq_words targets)'
complete -c opsq -n '__opsq_at \'signal\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'signal\' 0' -a 'HUP INT TERM KILL QUIT USR1 USR2'
complete -c opsq -n '__opsq_at \'signal\' 1+' -a '(__opsq_words targets)'
complete -c opsq -n '__opsq_at \'scale\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'scale\' 0' -a '(__opsq_words programs)'
complete -c opsq -n '__opsq_at \'reload\'' -l dry-run -d 'Say what would be done, and do nothing.'
complete -c opsq -n '__opsq_at \'reload\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'logs\'' -s n -l lines -x -d 'The last N of each.'
complete -c opsq -n '__opsq_at \'logs\'' -s f -l follow -d 'Go on with what is written from now on.'
complete -c opsq -n '__opsq_at \'logs\'' -l all -d 'The supervisor\'s own log (opsq), too.'
complete -c opsq -n '__opsq_at \'logs\'' -l log-format -x -a 'text json' -d 'json: each line as an object.'
complete -c opsq -n '__opsq_at \'logs\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'logs\' 0+' -a '(__opsq_words programs)'
complete -c opsq -n '__opsq_at \'generate\'' -s o -l output -r -F -d 'Write files there.'
complete -c opsq -n '__opsq_at \'generate\'' -l user -x -d 'Who runs it; default: you.'
complete -c opsq -n '__opsq_at \'generate\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'generate\' 0' -a 'systemd supervisord'
complete -c opsq -n '__opsq_at \'worker\'' -s n -l hostname -x -d 'Node name; %h host, %n its first part, %d its domain.'
complete -c opsq -n '__opsq_at \'worker\'' -s l -l loglevel -x -d 'In any case.'
complete -c opsq -n '__opsq_at \'worker\'' -s c -l concurrency -x -d 'Children; default: the CPUs this process may use.'
complete -c opsq -n '__opsq_at \'worker\'' -s P -l pool -x -d 'prefork (default) or solo.'
complete -c opsq -n '__opsq_at \'worker\'' -s Q -l queues -x -a '(__opsq_list queues)' -d 'Queues; default: all of the app.'
complete -c opsq -n '__opsq_at \'worker\'' -s X -l exclude-queues -x -a '(__opsq_list queues)' -d 'Queues to leave out.'
complete -c opsq -n '__opsq_at \'worker\'' -s I -l include -x -d 'More modules with tasks.'
complete -c opsq -n '__opsq_at \'worker\'' -l time-limit -x -d 'Hard time limit of a task, seconds.'
complete -c opsq -n '__opsq_at \'worker\'' -l soft-time-limit -x -d 'Soft time limit of a task, seconds.'
complete -c opsq -n '__opsq_at \'worker\'' -l max-tasks-per-child -x -d 'Replace a child after N tasks.'
complete -c opsq -n '__opsq_at \'worker\'' -l max-memory-per-child -x -d 'Replace a child that has grown beyond KIB.'
complete -c opsq -n '__opsq_at \'worker\'' -l prefetch-multiplier -x -d 'Most messages in a child\'s hand; 0 = automatic.'
complete -c opsq -n '__opsq_at \'worker\'' -l lease -x -d 'Peers take over this long after its last sign of life; 15.'
complete -c opsq -n '__opsq_at \'worker\'' -l purge -l discard -d 'Empty the queues first.'
complete -c opsq -n '__opsq_at \'worker\'' -s f -l logfile -r -F -d 'Log there instead of to stderr.'
complete -c opsq -n '__opsq_at \'worker\'' -l log-format -x -a 'text json' -d 'One JSON object a line: json.'
complete -c opsq -n '__opsq_at \'worker\'' -l pidfile -r -F -d 'Write the pid there; refuse if that process lives.'
complete -c opsq -n '__opsq_at \'worker\'' -l uid -x -d 'Become this user.'
complete -c opsq -n '__opsq_at \'worker\'' -l gid -x -d 'Become this group.'
complete -c opsq -n '__opsq_at \'worker\'' -l umask -x -d 'File mode mask.'
complete -c opsq -n '__opsq_at \'worker\'' -s E -l task-events -l events -d '(Celery) Send task events.'
complete -c opsq -n '__opsq_at \'worker\'' -s O -l optimization -x -d '(Celery) Always fair here.'
complete -c opsq -n '__opsq_at \'worker\'' -l disable-prefetch -d '(Celery) Nothing waits behind a long task here.'
complete -c opsq -n '__opsq_at \'worker\'' -l without-gossip -d '(Celery) There is none.'
complete -c opsq -n '__opsq_at \'worker\'' -l without-mingle -d '(Celery) There is none.'
complete -c opsq -n '__opsq_at \'worker\'' -l without-heartbeat -d '(Celery) Leases take its place.'
complete -c opsq -n '__opsq_at \'worker\'' -l heartbeat-interval -x -d '(Celery) Leases take its place.'
complete -c opsq -n '__opsq_at \'worker\'' -l autoscale -x -d '(Celery)'
complete -c opsq -n '__opsq_at \'worker\'' -s B -l beat -d 'Run the scheduler of periodic tasks too.'
complete -c opsq -n '__opsq_at \'worker\'' -s s -l schedule -l schedule-filename -x -d '(Celery) Kept in Redis.'
complete -c opsq -n '__opsq_at \'worker\'' -l scheduler -x -d '(Celery) There is one kind.'
complete -c opsq -n '__opsq_at \'worker\'' -s S -l statedb -x -d '(Celery)'
complete -c opsq -n '__opsq_at \'worker\'' -l pool-start-method -x -d '(Celery)'
complete -c opsq -n '__opsq_at \'worker\'' -s D -l detach -d '(Celery) `opsq up` does it.'
complete -c opsq -n '__opsq_at \'worker\'' -l executable -x -d '(Celery)'
complete -c opsq -n '__opsq_at \'worker\'' -l loader -x -d '(Celery)'
complete -c opsq -n '__opsq_at \'worker\'' -l skip-checks -d '(Celery) There are none.'
complete -c opsq -n '__opsq_at \'worker\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'monitor\'' -l address -x -d 'Where to listen (127.0.0.1); any other demands a password.'
complete -c opsq -n '__opsq_at \'monitor\'' -l port -x -d 'The port; default: 5555 or the next free.'
complete -c opsq -n '__opsq_at \'monitor\'' -l basic-auth -l basic_auth -x -d 'Who may come in.'
complete -c opsq -n '__opsq_at \'monitor\'' -l read-only -d 'No buttons that act, also with a password.'
complete -c opsq -n '__opsq_at \'monitor\'' -l url-prefix -l url_prefix -x -d 'The path behind a reverse proxy.'
complete -c opsq -n '__opsq_at \'monitor\'' -l certfile -x -d 'Certificate (PEM), to serve HTTPS.'
complete -c opsq -n '__opsq_at \'monitor\'' -l keyfile -x -d 'The certificate\'s key (PEM).'
complete -c opsq -n '__opsq_at \'monitor\'' -l history -x -d 'Tasks kept (10000).'
complete -c opsq -n '__opsq_at \'monitor\'' -l history-age -x -d 'How long they are kept (7d).'
complete -c opsq -n '__opsq_at \'monitor\'' -l enable-events -l enable_events -l no-enable-events -l no-enable_events -d 'Have Celery\'s workers send events (yes).'
complete -c opsq -n '__opsq_at \'monitor\'' -s l -l loglevel -x -d 'Log this and worse, in any case.'
complete -c opsq -n '__opsq_at \'monitor\'' -s f -l logfile -r -F -d 'Log there instead of to stderr.'
complete -c opsq -n '__opsq_at \'monitor\'' -l log-format -x -a 'text json' -d 'One JSON object a line: json.'
complete -c opsq -n '__opsq_at \'monitor\'' -l pidfile -r -F -d 'Write the pid there; refuse if that process lives.'
complete -c opsq -n '__opsq_at \'monitor\'' -l uid -x -d 'Become this user.'
complete -c opsq -n '__opsq_at \'monitor\'' -l gid -x -d 'Become this group.'
complete -c opsq -n '__opsq_at \'monitor\'' -l umask -x -d 'File mode mask.'
complete -c opsq -n '__opsq_at \'monitor\'' -s D -l detach -d '(Celery) `opsq up` does it.'
complete -c opsq -n '__opsq_at \'monitor\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'flower\'' -l address -x -d 'Where to listen (127.0.0.1); any other demands a password.'
complete -c opsq -n '__opsq_at \'flower\'' -l port -x -d 'The port; default: 5555 or the next free.'
complete -c opsq -n '__opsq_at \'flower\'' -l basic-auth -l basic_auth -x -d 'Who may come in.'
complete -c opsq -n '__opsq_at \'flower\'' -l read-only -d 'No buttons that act, also with a password.'
complete -c opsq -n '__opsq_at \'flower\'' -l url-prefix -l url_prefix -x -d 'The path behind a reverse proxy.'
complete -c opsq -n '__opsq_at \'flower\'' -l certfile -x -d 'Certificate (PEM), to serve HTTPS.'
complete -c opsq -n '__opsq_at \'flower\'' -l keyfile -x -d 'The certificate\'s key (PEM).'
complete -c opsq -n '__opsq_at \'flower\'' -l history -x -d 'Tasks kept (10000).'
complete -c opsq -n '__opsq_at \'flower\'' -l history-age -x -d 'How long they are kept (7d).'
complete -c opsq -n '__opsq_at \'flower\'' -l enable-events -l enable_events -l no-enable-events -l no-enable_events -d 'Have Celery\'s workers send events (yes).'
complete -c opsq -n '__opsq_at \'flower\'' -s l -l loglevel -x -d 'Log this and worse, in any case.'
complete -c opsq -n '__opsq_at \'flower\'' -s f -l logfile -r -F -d 'Log there instead of to stderr.'
complete -c opsq -n '__opsq_at \'flower\'' -l log-format -x -a 'text json' -d 'One JSON object a line: json.'
complete -c opsq -n '__opsq_at \'flower\'' -l pidfile -r -F -d 'Write the pid there; refuse if that process lives.'
complete -c opsq -n '__opsq_at \'flower\'' -l uid -x -d 'Become this user.'
complete -c opsq -n '__opsq_at \'flower\'' -l gid -x -d 'Become this group.'
complete -c opsq -n '__opsq_at \'flower\'' -l umask -x -d 'File mode mask.'
complete -c opsq -n '__opsq_at \'flower\'' -s D -l detach -d '(Celery) `opsq up` does it.'
complete -c opsq -n '__opsq_at \'flower\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'beat\'' -s s -l schedule -l schedule-filename -x -d '(Celery) Kept in Redis.'
complete -c opsq -n '__opsq_at \'beat\'' -s S -l scheduler -x -d '(Celery) There is one kind, which keeps last runs in Redis.'
complete -c opsq -n '__opsq_at \'beat\'' -l max-interval -x -d 'Sleep at most so long between two looks.'
complete -c opsq -n '__opsq_at \'beat\'' -s l -l loglevel -x -d 'Log this and worse, in any case.'
complete -c opsq -n '__opsq_at \'beat\'' -s f -l logfile -r -F -d 'Log there instead of to stderr.'
complete -c opsq -n '__opsq_at \'beat\'' -l log-format -x -a 'text json' -d 'One JSON object a line: json.'
complete -c opsq -n '__opsq_at \'beat\'' -l pidfile -r -F -d 'Write the pid there; refuse if that process lives.'
complete -c opsq -n '__opsq_at \'beat\'' -l uid -x -d 'Become this user.'
complete -c opsq -n '__opsq_at \'beat\'' -l gid -x -d 'Become this group.'
complete -c opsq -n '__opsq_at \'beat\'' -l umask -x -d 'File mode mask.'
complete -c opsq -n '__opsq_at \'beat\'' -s D -l detach -d '(Celery) `opsq up` does it.'
complete -c opsq -n '__opsq_at \'beat\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'agent\'' -l name -x -d 'By which name this host goes; default: its host name.'
complete -c opsq -n '__opsq_at \'agent\'' -l tag -l tags -x -d 'A group it is in (@TAG); several times.'
complete -c opsq -n '__opsq_at \'agent\'' -l slots -x -d 'Commands at a time.'
complete -c opsq -n '__opsq_at \'agent\'' -l lease -x -d 'Gone after S seconds; 15.'
complete -c opsq -n '__opsq_at \'agent\'' -l stop-wait -x -d 'Let commands end for S; 20.'
complete -c opsq -n '__opsq_at \'agent\'' -s l -l loglevel -x -d 'Log this and worse, in any case.'
complete -c opsq -n '__opsq_at \'agent\'' -s f -l logfile -r -F -d 'Log there instead of to stderr.'
complete -c opsq -n '__opsq_at \'agent\'' -l log-format -x -a 'text json' -d 'One JSON object a line: json.'
complete -c opsq -n '__opsq_at \'agent\'' -l pidfile -r -F -d 'Write the pid there; refuse if that process lives.'
complete -c opsq -n '__opsq_at \'agent\'' -l uid -x -d 'Become this user.'
complete -c opsq -n '__opsq_at \'agent\'' -l gid -x -d 'Become this group.'
complete -c opsq -n '__opsq_at \'agent\'' -l umask -x -d 'File mode mask.'
complete -c opsq -n '__opsq_at \'agent\'' -s D -l detach -d '(Celery) `opsq up` does it.'
complete -c opsq -n '__opsq_at \'agent\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'queues\' 0' -a pause -d 'Have nothing more taken from queues.'
complete -c opsq -n '__opsq_at \'queues\' 0' -a peek -d 'The next messages of a queue.'
complete -c opsq -n '__opsq_at \'queues\' 0' -a purge -d 'Throw away all that waits in a queue.'
complete -c opsq -n '__opsq_at \'queues\' 0' -a resume -d 'Have messages of paused queues taken again.'
complete -c opsq -n '__opsq_at \'queues\'' -l limit -x -d 'Show at most N (100); 0 = all.'
complete -c opsq -n '__opsq_at \'queues\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'queues pause\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'queues pause\' 0+' -a '(__opsq_words queues)'
complete -c opsq -n '__opsq_at \'queues peek\'' -l limit -x -d 'Show at most N (100); 0 = all.'
complete -c opsq -n '__opsq_at \'queues peek\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'queues peek\' 0' -a '(__opsq_words queues)'
complete -c opsq -n '__opsq_at \'queues purge\'' -s y -l yes -d 'Do not ask.'
complete -c opsq -n '__opsq_at \'queues purge\'' -l dry-run -d 'Say what would be done, and do nothing.'
complete -c opsq -n '__opsq_at \'queues purge\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'queues purge\' 0' -a '(__opsq_words queues)'
complete -c opsq -n '__opsq_at \'queues resume\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'queues resume\' 0+' -a '(__opsq_words queues)'
complete -c opsq -n '__opsq_at \'tasks\'' -l name -x -d 'Tasks with this in their name; * stands for anything.'
complete -c opsq -n '__opsq_at \'tasks\'' -l state -x -d 'In these states, with commas: FAILURE,RETRY.'
complete -c opsq -n '__opsq_at \'tasks\'' -s Q -l queue -x -a '(__opsq_list queues)' -d 'Of this queue.'
complete -c opsq -n '__opsq_at \'tasks\'' -l worker -x -d 'On workers with this in their name.'
complete -c opsq -n '__opsq_at \'tasks\'' -l since -x -d 'Changed within this time: 90, 5m, 12h, 7d.'
complete -c opsq -n '__opsq_at \'tasks\'' -l grep -x -d 'With this text in id, name, arguments, result or error.'
complete -c opsq -n '__opsq_at \'tasks\'' -l limit -x -d 'Show at most N (100); 0 = all.'
complete -c opsq -n '__opsq_at \'tasks\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'results\'' -l name -x -d 'Tasks with this in their name; * stands for anything.'
complete -c opsq -n '__opsq_at \'results\'' -l state -x -d 'In these states, with commas: FAILURE,RETRY.'
complete -c opsq -n '__opsq_at \'results\'' -s Q -l queue -x -a '(__opsq_list queues)' -d 'Of this queue.'
complete -c opsq -n '__opsq_at \'results\'' -l worker -x -d 'On workers with this in their name.'
complete -c opsq -n '__opsq_at \'results\'' -l since -x -d 'Changed within this time: 90, 5m, 12h, 7d.'
complete -c opsq -n '__opsq_at \'results\'' -l grep -x -d 'With this text in id, name, arguments, result or error.'
complete -c opsq -n '__opsq_at \'results\'' -l limit -x -d 'Show at most N (100); 0 = all.'
complete -c opsq -n '__opsq_at \'results\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'dead\' 0' -a drop -d 'Throw dead letters away for good.'
complete -c opsq -n '__opsq_at \'dead\' 0' -a requeue -d 'Put them back into their queues.'
complete -c opsq -n '__opsq_at \'dead\' 0' -a show -d 'All that is known of one.'
complete -c opsq -n '__opsq_at \'dead\'' -s Q -l queue -x -a '(__opsq_list queues)' -d 'Only those of this queue.'
complete -c opsq -n '__opsq_at \'dead\'' -l limit -x -d 'Show at most N (100); 0 = all.'
complete -c opsq -n '__opsq_at \'dead\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'dead drop\'' -l all -d 'All of them (with --queue: all of that queue).'
complete -c opsq -n '__opsq_at \'dead drop\'' -s Q -l queue -x -a '(__opsq_list queues)' -d 'Only those of this queue.'
complete -c opsq -n '__opsq_at \'dead drop\'' -s y -l yes -d 'Do not ask.'
complete -c opsq -n '__opsq_at \'dead drop\'' -l dry-run -d 'Say what would be done, and do nothing.'
complete -c opsq -n '__opsq_at \'dead drop\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'dead requeue\'' -l all -d 'All of them (with --queue: all of that queue).'
complete -c opsq -n '__opsq_at \'dead requeue\'' -s Q -l queue -x -a '(__opsq_list queues)' -d 'Only those of this queue.'
complete -c opsq -n '__opsq_at \'dead requeue\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'dead show\'' -s Q -l queue -x -a '(__opsq_list queues)' -d 'The one in this queue.'
complete -c opsq -n '__opsq_at \'dead show\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'schedule\' 0' -a add -d 'Add an entry, which runs until it is removed.'
complete -c opsq -n '__opsq_at \'schedule\' 0' -a next -d 'The next runs of all entries, in order.'
complete -c opsq -n '__opsq_at \'schedule\' 0' -a pause -d 'Have entries fire no more until resumed.'
complete -c opsq -n '__opsq_at \'schedule\' 0' -a remove -d 'Remove entries that were added by command.'
complete -c opsq -n '__opsq_at \'schedule\' 0' -a resume -d 'Have paused entries fire again.'
complete -c opsq -n '__opsq_at \'schedule\' 0' -a run -d 'Have the beat send an entry\'s task now.'
complete -c opsq -n '__opsq_at \'schedule\'' -l limit -x -d 'Show at most N (100); 0 = all.'
complete -c opsq -n '__opsq_at \'schedule\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'schedule add\'' -l every -x -d 'Each so often: 90, 5m, 1h30m.'
complete -c opsq -n '__opsq_at \'schedule add\'' -l cron -x -d 'Minute, hour, day of month, month, day of week, in one text.'
complete -c opsq -n '__opsq_at \'schedule add\'' -l timezone -x -d 'Of --cron; default: the app\'s.'
complete -c opsq -n '__opsq_at \'schedule add\'' -l args -x -d 'Positional arguments, a JSON list.'
complete -c opsq -n '__opsq_at \'schedule add\'' -l kwargs -x -d 'Keyword arguments, a JSON object.'
complete -c opsq -n '__opsq_at \'schedule add\'' -l queue -x -a '(__opsq_list queues)' -d 'Where it is sent; default: as the app routes it.'
complete -c opsq -n '__opsq_at \'schedule add\'' -l priority -x -d '0 is served first.'
complete -c opsq -n '__opsq_at \'schedule add\'' -l expires -x -d 'Not run when it has waited so long.'
complete -c opsq -n '__opsq_at \'schedule add\'' -l jitter -x -d 'Send up to so much later, differently each time.'
complete -c opsq -n '__opsq_at \'schedule add\'' -l overlap -x -a 'allow skip' -d 'skip: not while its last run is unfinished.'
complete -c opsq -n '__opsq_at \'schedule add\'' -l missed -x -a 'once all none' -d 'What becomes of missed runs; once.'
complete -c opsq -n '__opsq_at \'schedule add\'' -l missed-limit -x -d 'Of --missed all: at most N; 100.'
complete -c opsq -n '__opsq_at \'schedule add\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'schedule next\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'schedule pause\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'schedule remove\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'schedule resume\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'schedule run\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'workers\'' -l limit -x -d 'Show at most N (100); 0 = all.'
complete -c opsq -n '__opsq_at \'workers\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'run\' 0' -a host-batch -d 'Run a command on hosts.'
complete -c opsq -n '__opsq_at \'run\' 0' -a task -d 'Send a call of a task.'
complete -c opsq -n '__opsq_at \'run\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'run host-batch\'' -l hosts -x -a '(__opsq_list hosts)' -d 'web[01-40], web*, @group, !name; default: all that are there.'
complete -c opsq -n '__opsq_at \'run host-batch\'' -l timeout -x -d 'End the command after this time (10m).'
complete -c opsq -n '__opsq_at \'run host-batch\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'run task\'' -l wait -d 'Wait for the value and print it as JSON.'
complete -c opsq -n '__opsq_at \'run task\'' -l timeout -x -d 'Wait this long at most: 30, 5m.'
complete -c opsq -n '__opsq_at \'run task\'' -s Q -l queue -x -a '(__opsq_list queues)' -d 'Send it to this queue.'
complete -c opsq -n '__opsq_at \'run task\'' -l countdown -x -d 'Run it after this time.'
complete -c opsq -n '__opsq_at \'run task\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'run task\' 0' -a '(__opsq_words tasks)'
complete -c opsq -n '__opsq_at \'init\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'init\' 0+' -F
complete -c opsq -n '__opsq_at \'config\'' -l all -d 'Also settings that have their default.'
complete -c opsq -n '__opsq_at \'config\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'completion\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -n '__opsq_at \'completion\' 0' -a 'bash zsh fish'
complete -c opsq -n '__opsq_at \'doctor\'' -s h -l help -d 'Show this message and exit.'
complete -c opsq -s A -l app -x -d 'The app: module, module:name, or a package.'
complete -c opsq -s b -l broker -x -d 'The broker, whatever the app says.'
complete -c opsq -l result-backend -x -d 'Where results are kept.'
complete -c opsq -l workdir -r -F -d 'Change to this directory first.'
complete -c opsq -l config -r -F -d 'A module with settings, or an opsq.toml.'
complete -c opsq -l state-dir -r -F -d 'Where `opsq up` keeps sockets, logs and data.'
complete -c opsq -l json -d 'Data as JSON.'
complete -c opsq -l plain -d 'Plain text, also in a terminal.'
complete -c opsq -s C -l no-color -d 'No colours.'
complete -c opsq -s q -l quiet -d 'Only data and errors.'
