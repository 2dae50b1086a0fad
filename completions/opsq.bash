# Completion of opsq for bash. Made by `opsq completion bash`. To have it:
#   eval "$(opsq completion bash)"      in ~/.bashrc

_opsq_below() {
    case "$1" in
        "") echo 'up down status start stop restart signal scale reload logs import generate worker monitor flower beat agent queues limits tasks results result dead schedule workers events why audit hosts jobs run inspect control call purge list report shell graph init migrate-code join keys config completion doctor' ;;
        "queues") echo 'handover move pause peek purge resume' ;;
        "tasks") echo revoke ;;
        "dead") echo 'drop requeue show' ;;
        "schedule") echo 'add next pause remove resume run' ;;
        "hosts") echo 'forget invite' ;;
        "jobs") echo show ;;
        "run") echo 'host-batch task' ;;
        "list") echo bindings ;;
        "graph") echo 'bootsteps workers' ;;
        "keys") echo 'fingerprint revoke trust' ;;
    esac
}

_opsq_flags() {
    case "$1" in
        "") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet --version -h --help' ;;
        "up") echo '-c --configuration --foreground --log-format --reload -d --detach -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "down") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "status") echo '--watch --all -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "start") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "stop") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "restart") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "signal") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "scale") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "reload") echo '--dry-run -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "logs") echo '-n --lines -f --follow --all --task --log-format -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "import") echo '-o --output -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "generate") echo '-o --output --user -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "worker") echo '-n --hostname -l --loglevel -c --concurrency -P --pool -Q --queues -X --exclude-queues -I --include --time-limit --soft-time-limit --max-tasks-per-child --max-memory-per-child --prefetch-multiplier --lease --purge --discard -f --logfile --log-format --pidfile --uid --gid --umask -E --task-events --events -O --optimization --disable-prefetch --without-gossip --without-mingle --without-heartbeat --heartbeat-interval --autoscale --reload -B --beat -s --schedule --schedule-filename --scheduler -S --statedb --pool-start-method -D --detach --executable --loader --skip-checks -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "monitor") echo '--address --port --basic-auth --basic_auth --read-only --url-prefix --url_prefix --certfile --keyfile --history --max_tasks --max-tasks --history-age --enable-events --enable_events --no-enable-events --no-enable_events -l --loglevel -f --logfile --log-format --pidfile --uid --gid --umask -D --detach -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "flower") echo '--address --port --basic-auth --basic_auth --read-only --url-prefix --url_prefix --certfile --keyfile --history --max_tasks --max-tasks --history-age --enable-events --enable_events --no-enable-events --no-enable_events -l --loglevel -f --logfile --log-format --pidfile --uid --gid --umask -D --detach -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "beat") echo '-s --schedule --schedule-filename -S --scheduler --max-interval -n --hostname --enable-remote-control --no-enable-remote-control --executable -l --loglevel -f --logfile --log-format --pidfile --uid --gid --umask -D --detach -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "agent") echo '--name --tag --tags --slots --lease --stop-wait -l --loglevel -f --logfile --log-format --pidfile --uid --gid --umask -D --detach -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "queues") echo '--limit -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "queues handover") echo '--to-celery --dry-run -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "queues move") echo '--limit --task -y --yes --dry-run -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "queues pause") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "queues peek") echo '--limit -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "queues purge") echo '-y --yes --dry-run -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "queues resume") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "limits") echo '--limit -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "tasks") echo '--name --state -Q --queue --worker --since --grep --watch --profile --limit -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "tasks revoke") echo '--name -Q --queue --terminate --signal -y --yes --dry-run -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "results") echo '--name --state -Q --queue --worker --since --grep --limit -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "result") echo '-t --task --traceback --timeout -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "dead") echo '-Q --queue --task --limit -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "dead drop") echo '--all -Q --queue --task -y --yes --dry-run -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "dead requeue") echo '--all -Q --queue --task -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "dead show") echo '-Q --queue -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "schedule") echo '--limit -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "schedule add") echo '--every --cron --timezone --args --kwargs --queue --priority --expires --jitter --overlap --missed --missed-limit -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "schedule next") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "schedule pause") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "schedule remove") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "schedule resume") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "schedule run") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "workers") echo '--limit -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "events") echo '-d --dump --type --task --worker --id --limit --timeout -c --camera -F --frequency --freq -r --maxrate -l --loglevel -D --detach --executable --umask --gid --uid --pidfile -f --logfile -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "why") echo '-Q --queue -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "audit") echo '-Q --queue --accept --limit -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "hosts") echo '--limit -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "hosts forget") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "hosts invite") echo '--file -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "jobs") echo '--limit -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "jobs show") echo '--export -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "run") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "run host-batch") echo '--hosts --timeout -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "run task") echo '--wait --timeout -Q --queue --countdown -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "inspect") echo '--list -t --timeout -d --destination -j -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "control") echo '--list -t --timeout -d --destination -j -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "call") echo '-a --args -k --kwargs --eta --countdown --expires --serializer --queue --exchange --routing-key -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "purge") echo '-f --force -Q --queues -X --exclude-queues -y --yes --dry-run -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "list") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "list bindings") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "report") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "shell") echo '-I --ipython -B --bpython --python -T --without-tasks --eventlet --gevent -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "graph") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "graph bootsteps") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "graph workers") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "init") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "migrate-code") echo '--write -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "join") echo '--file -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "keys") echo '--limit -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "keys fingerprint") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "keys revoke") echo '-y --yes --dry-run -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "keys trust") echo '--name -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "config") echo '--all -A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "completion") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
        "doctor") echo '-A --app -b --broker --result-backend --workdir --config --state-dir --json --plain -C --no-color -q --quiet -h --help' ;;
    esac
}

_opsq_value() {
    case "$1|$2" in
        "up|-c"|"up|--configuration") echo files ;;
        "up|--log-format") echo '=text json' ;;
        "logs|-n"|"logs|--lines") echo '' ;;
        "logs|--task") echo '' ;;
        "logs|--log-format") echo '=text json' ;;
        "import|-o"|"import|--output") echo files ;;
        "generate|-o"|"generate|--output") echo files ;;
        "generate|--user") echo '' ;;
        "worker|-n"|"worker|--hostname") echo '' ;;
        "worker|-l"|"worker|--loglevel") echo '' ;;
        "worker|-c"|"worker|--concurrency") echo '' ;;
        "worker|-P"|"worker|--pool") echo '' ;;
        "worker|-Q"|"worker|--queues") echo queues ;;
        "worker|-X"|"worker|--exclude-queues") echo queues ;;
        "worker|-I"|"worker|--include") echo '' ;;
        "worker|--time-limit") echo '' ;;
        "worker|--soft-time-limit") echo '' ;;
        "worker|--max-tasks-per-child") echo '' ;;
        "worker|--max-memory-per-child") echo '' ;;
        "worker|--prefetch-multiplier") echo '' ;;
        "worker|--lease") echo '' ;;
        "worker|-f"|"worker|--logfile") echo files ;;
        "worker|--log-format") echo '=text json' ;;
        "worker|--pidfile") echo files ;;
        "worker|--uid") echo '' ;;
        "worker|--gid") echo '' ;;
        "worker|--umask") echo '' ;;
        "worker|-O"|"worker|--optimization") echo '' ;;
        "worker|--heartbeat-interval") echo '' ;;
        "worker|--autoscale") echo '' ;;
        "worker|-s"|"worker|--schedule"|"worker|--schedule-filename") echo '' ;;
        "worker|--scheduler") echo '' ;;
        "worker|-S"|"worker|--statedb") echo '' ;;
        "worker|--pool-start-method") echo '' ;;
        "worker|--executable") echo '' ;;
        "worker|--loader") echo '' ;;
        "monitor|--address") echo '' ;;
        "monitor|--port") echo '' ;;
        "monitor|--basic-auth"|"monitor|--basic_auth") echo '' ;;
        "monitor|--url-prefix"|"monitor|--url_prefix") echo '' ;;
        "monitor|--certfile") echo '' ;;
        "monitor|--keyfile") echo '' ;;
        "monitor|--history"|"monitor|--max_tasks"|"monitor|--max-tasks") echo '' ;;
        "monitor|--history-age") echo '' ;;
        "monitor|-l"|"monitor|--loglevel") echo '' ;;
        "monitor|-f"|"monitor|--logfile") echo files ;;
        "monitor|--log-format") echo '=text json' ;;
        "monitor|--pidfile") echo files ;;
        "monitor|--uid") echo '' ;;
        "monitor|--gid") echo '' ;;
        "monitor|--umask") echo '' ;;
        "flower|--address") echo '' ;;
        "flower|--port") echo '' ;;
        "flower|--basic-auth"|"flower|--basic_auth") echo '' ;;
        "flower|--url-prefix"|"flower|--url_prefix") echo '' ;;
        "flower|--certfile") echo '' ;;
        "flower|--keyfile") echo '' ;;
        "flower|--history"|"flower|--max_tasks"|"flower|--max-tasks") echo '' ;;
        "flower|--history-age") echo '' ;;
        "flower|-l"|"flower|--loglevel") echo '' ;;
        "flower|-f"|"flower|--logfile") echo files ;;
        "flower|--log-format") echo '=text json' ;;
        "flower|--pidfile") echo files ;;
        "flower|--uid") echo '' ;;
        "flower|--gid") echo '' ;;
        "flower|--umask") echo '' ;;
        "beat|-s"|"beat|--schedule"|"beat|--schedule-filename") echo '' ;;
        "beat|-S"|"beat|--scheduler") echo '' ;;
        "beat|--max-interval") echo '' ;;
        "beat|-n"|"beat|--hostname") echo '' ;;
        "beat|--executable") echo '' ;;
        "beat|-l"|"beat|--loglevel") echo '' ;;
        "beat|-f"|"beat|--logfile") echo files ;;
        "beat|--log-format") echo '=text json' ;;
        "beat|--pidfile") echo files ;;
        "beat|--uid") echo '' ;;
        "beat|--gid") echo '' ;;
        "beat|--umask") echo '' ;;
        "agent|--name") echo '' ;;
        "agent|--tag"|"agent|--tags") echo '' ;;
        "agent|--slots") echo '' ;;
        "agent|--lease") echo '' ;;
        "agent|--stop-wait") echo '' ;;
        "agent|-l"|"agent|--loglevel") echo '' ;;
        "agent|-f"|"agent|--logfile") echo files ;;
        "agent|--log-format") echo '=text json' ;;
        "agent|--pidfile") echo files ;;
        "agent|--uid") echo '' ;;
        "agent|--gid") echo '' ;;
        "agent|--umask") echo '' ;;
        "queues|--limit") echo '' ;;
        "queues move|--limit") echo '' ;;
        "queues move|--task") echo tasks ;;
        "queues peek|--limit") echo '' ;;
        "limits|--limit") echo '' ;;
        "tasks|--name") echo '' ;;
        "tasks|--state") echo '' ;;
        "tasks|-Q"|"tasks|--queue") echo queues ;;
        "tasks|--worker") echo '' ;;
        "tasks|--since") echo '' ;;
        "tasks|--grep") echo '' ;;
        "tasks|--limit") echo '' ;;
        "tasks revoke|--name") echo '' ;;
        "tasks revoke|-Q"|"tasks revoke|--queue") echo queues ;;
        "tasks revoke|--signal") echo '' ;;
        "results|--name") echo '' ;;
        "results|--state") echo '' ;;
        "results|-Q"|"results|--queue") echo queues ;;
        "results|--worker") echo '' ;;
        "results|--since") echo '' ;;
        "results|--grep") echo '' ;;
        "results|--limit") echo '' ;;
        "result|-t"|"result|--task") echo tasks ;;
        "result|--timeout") echo '' ;;
        "dead|-Q"|"dead|--queue") echo queues ;;
        "dead|--task") echo tasks ;;
        "dead|--limit") echo '' ;;
        "dead drop|-Q"|"dead drop|--queue") echo queues ;;
        "dead drop|--task") echo tasks ;;
        "dead requeue|-Q"|"dead requeue|--queue") echo queues ;;
        "dead requeue|--task") echo tasks ;;
        "dead show|-Q"|"dead show|--queue") echo queues ;;
        "schedule|--limit") echo '' ;;
        "schedule add|--every") echo '' ;;
        "schedule add|--cron") echo '' ;;
        "schedule add|--timezone") echo '' ;;
        "schedule add|--args") echo '' ;;
        "schedule add|--kwargs") echo '' ;;
        "schedule add|--queue") echo queues ;;
        "schedule add|--priority") echo '' ;;
        "schedule add|--expires") echo '' ;;
        "schedule add|--jitter") echo '' ;;
        "schedule add|--overlap") echo '=allow skip' ;;
        "schedule add|--missed") echo '=once all none' ;;
        "schedule add|--missed-limit") echo '' ;;
        "workers|--limit") echo '' ;;
        "events|--type") echo '' ;;
        "events|--task") echo '' ;;
        "events|--worker") echo '' ;;
        "events|--id") echo '' ;;
        "events|--limit") echo '' ;;
        "events|--timeout") echo '' ;;
        "events|-c"|"events|--camera") echo '' ;;
        "events|-F"|"events|--frequency"|"events|--freq") echo '' ;;
        "events|-r"|"events|--maxrate") echo '' ;;
        "events|-l"|"events|--loglevel") echo '' ;;
        "events|--executable") echo '' ;;
        "events|--umask") echo '' ;;
        "events|--gid") echo '' ;;
        "events|--uid") echo '' ;;
        "events|--pidfile") echo files ;;
        "events|-f"|"events|--logfile") echo files ;;
        "why|-Q"|"why|--queue") echo queues ;;
        "audit|-Q"|"audit|--queue") echo queues ;;
        "audit|--limit") echo '' ;;
        "hosts|--limit") echo '' ;;
        "hosts invite|--file") echo files ;;
        "jobs|--limit") echo '' ;;
        "jobs show|--export") echo files ;;
        "run host-batch|--hosts") echo hosts ;;
        "run host-batch|--timeout") echo '' ;;
        "run task|--timeout") echo '' ;;
        "run task|-Q"|"run task|--queue") echo queues ;;
        "run task|--countdown") echo '' ;;
        "inspect|-t"|"inspect|--timeout") echo '' ;;
        "inspect|-d"|"inspect|--destination") echo '' ;;
        "control|-t"|"control|--timeout") echo '' ;;
        "control|-d"|"control|--destination") echo '' ;;
        "call|-a"|"call|--args") echo '' ;;
        "call|-k"|"call|--kwargs") echo '' ;;
        "call|--eta") echo '' ;;
        "call|--countdown") echo '' ;;
        "call|--expires") echo '' ;;
        "call|--serializer") echo '' ;;
        "call|--queue") echo queues ;;
        "call|--exchange") echo '' ;;
        "call|--routing-key") echo '' ;;
        "purge|-Q"|"purge|--queues") echo queues ;;
        "purge|-X"|"purge|--exclude-queues") echo queues ;;
        "join|--file") echo files ;;
        "keys|--limit") echo '' ;;
        "keys trust|--name") echo '' ;;
        *"|--config") echo files ;;
        *"|--result-backend") echo '' ;;
        *"|--state-dir") echo files ;;
        *"|--workdir") echo files ;;
        *"|-A"|*"|--app") echo '' ;;
        *"|-b"|*"|--broker") echo '' ;;
        *) return 1 ;;
    esac
}

_opsq_argument() {
    case "$1|$2" in
        "up|"*) echo programs ;;
        "status|"*) echo programs ;;
        "start|"*) echo targets ;;
        "stop|"*) echo targets ;;
        "restart|"*) echo targets ;;
        "signal|0") echo '=HUP INT TERM KILL QUIT USR1 USR2' ;;
        "signal|"*) echo targets ;;
        "scale|0") echo programs ;;
        "logs|"*) echo programs ;;
        "generate|0") echo '=systemd supervisord' ;;
        "queues move|0") echo queues ;;
        "queues move|1") echo queues ;;
        "queues pause|"*) echo queues ;;
        "queues peek|0") echo queues ;;
        "queues purge|0") echo queues ;;
        "queues resume|"*) echo queues ;;
        "hosts|"*) echo hosts ;;
        "run task|0") echo tasks ;;
        "call|0") echo tasks ;;
        "init|"*) echo files ;;
        "completion|0") echo '=bash zsh fish' ;;
    esac
}

_opsq_complete() {
    local word kind path="" before="" skip="" at=0 place=1
    local current="${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=()
    while [ "$place" -lt "$COMP_CWORD" ]; do
        word="${COMP_WORDS[place]}"
        place=$((place + 1))
        if [ -n "$skip" ]; then
            if [ "$word" != "=" ]; then skip=""; before=""; fi
            continue
        fi
        case "$word" in
            -*) if _opsq_value "$path" "$word" >/dev/null; then skip=1; before="$word"; fi ;;
            *) case " $(_opsq_below "$path") " in
                *" $word "*) path="${path:+$path }$word"; at=0 ;;
                *) at=$((at + 1)) ;;
               esac ;;
        esac
    done
    if [ "$current" = "=" ]; then current=""; fi
    if [ -n "$skip" ]; then
        kind="$(_opsq_value "$path" "$before")"
    elif [ "${current#-}" != "$current" ]; then
        kind="=$(_opsq_flags "$path")"
    elif [ -n "$(_opsq_below "$path")" ]; then
        kind="=$(_opsq_below "$path")"
    else
        kind="$(_opsq_argument "$path" "$at")"
    fi
    local IFS=$' \t\n'
    case "$kind" in
        =*) COMPREPLY=($(compgen -W "${kind#=}" -- "$current")) ;;
        files) COMPREPLY=($(compgen -f -- "$current")) ;;
        "") ;;
        *)  local list="" last="$current" words
            words="$("${COMP_WORDS[0]}" completion --words "$kind" 2>/dev/null)"
            case "$current" in *,*) list="${current%,*},"; last="${current##*,}" ;; esac
            COMPREPLY=($(compgen -P "$list" -W "$words" -- "$last")) ;;
    esac
}
complete -o bashdefault -F _opsq_complete opsq
