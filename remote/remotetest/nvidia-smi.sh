#!/bin/sh
# nvidia-smi.sh [-L | --query-gpu=FIELDS --format=csv[,noheader][,nounits]]: lists the fake GPUs that are visible here.
query= format=
for arg; do
	case $arg in
	--query-gpu=*) query=${arg#*=} ;;
	--format=*) format=${arg#*=} ;;
	esac
done
case ,$format, in
*,noheader,*) ;;
*) [ -z "$query" ] || echo "$query" | sed 's/,/, /g' ;;
esac
unit=' MiB'
case ,$format, in *,nounits,*) unit= ;; esac
while read -r index uuid used; do
	case ,${NVIDIA_VISIBLE_DEVICES:-all}, in
	*,all,* | *,"$uuid",* | *,"$index",*) ;;
	*) continue ;;
	esac
	if [ -z "$query" ]; then
		echo "GPU $index: Fake H100 (UUID: $uuid)"
		continue
	fi
	line=
	for field in $(echo "$query" | tr , ' '); do
		case $field in
		index) value=$index ;;
		uuid | gpu_uuid) value=$uuid ;;
		name | gpu_name) value='Fake H100' ;;
		driver_version) value=550.54.15 ;;
		memory.total) value=81559$unit ;;
		memory.used) value=$used$unit ;;
		*) echo "Field \"$field\" is not a valid field to query."; exit 2 ;;
		esac
		line="$line${line:+, }$value"
	done
	echo "$line"
done </run/lab/gpus
